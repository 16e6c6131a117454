"""In-memory fakes of the broker and the sessions: the same contract, no server.

One `MemoryStore` takes the part of the server; every worker has its own `MemoryBroker` and
`MemorySessions` on it. Replies come on a later iteration of the event loop, in the order of the
requests, as those of a server do.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cluster.broker import (
    IDEMPOTENCY_MS,
    READ_MAX_BYTES,
    Acknowledged,
    BrokerListener,
    ConditionalResult,
    HistoryPolicy,
    PublishCondition,
    StreamRead,
)
from cluster.errors import StoreError, StoreUnavailable
from cluster.protocol import Position, Publication
from cluster.sessions import (
    Session,
)

#: How long the epoch of a stream is kept to which nothing was published.
UNUSED_MS = 3_600_000


@dataclass
class Stream:
    epoch: str
    top: int = 0
    entries: deque[Publication] = field(default_factory=deque)
    entries_end_ms: float = 0.0
    meta_end_ms: float = 0.0
    version: int = 0
    version_epoch: str = ""


@dataclass
class Record:
    session: Session
    expires_ms: float
    attached: int = 0


def _now_ms() -> float:
    return time.time() * 1000


class MemoryStore:
    """What a server stores; `is_up`, `delivers` and `cut` simulate its faults, `refused` counts the reads it refused."""

    def __init__(self) -> None:
        self.is_up = True
        self.delivers = True
        self.refused = 0
        self.streams: dict[str, Stream] = {}
        self.results: dict[tuple[str, str], tuple[Position, float]] = {}
        self.brokers: list[MemoryBroker] = []
        self.sessions: dict[str, Record] = {}
        self.holders: list[Any] = []
        #: By channel and client: when the entry ends, the user, the ClientInfo.
        self.members: dict[str, dict[str, tuple[float, str, bytes]]] = {}
        self.untold_members: set[tuple[str, str]] = set()
        self.counters = {"created": 0, "resumed": 0, "expired": 0}

    @cached_property
    def control(self) -> MemoryStore:
        """What the control channel uses, under names of its own."""
        return MemoryStore()

    def stream(self, channel: str, history: HistoryPolicy, *, touches: bool = True) -> Stream:
        now = _now_ms()
        stream = self.streams.get(channel)
        if stream is None or stream.meta_end_ms <= now:
            stream = self.streams[channel] = Stream(secrets.token_hex(4))
        if stream.entries_end_ms <= now:
            stream.entries.clear()
        if touches:
            end = now + history.meta_ttl_ms if history.meta_ttl_ms else float("inf")
            stream.meta_end_ms = end
        return stream

    def has_stream(self, channel: str) -> bool:
        stream = self.streams.get(channel)
        return stream is not None and stream.meta_end_ms > _now_ms()

    def append(self, channel: str, body: bytes, history: HistoryPolicy, ms: int) -> Publication:
        stream = self.stream(channel, history)
        stream.top += 1
        publication = Publication(stream.top, stream.epoch, body, ms)
        stream.entries.append(publication)
        while len(stream.entries) > history.size:
            stream.entries.popleft()
        stream.entries_end_ms = _now_ms() + history.ttl_ms
        return publication

    def read(
        self, channel: str, history: HistoryPolicy, since: int | None, limit: int, reverse: bool
    ) -> StreamRead:
        stream = self.stream(channel, history)
        if not stream.top:
            stream.meta_end_ms = min(stream.meta_end_ms, _now_ms() + UNUSED_MS)
        found = [publication._replace(accepted_ms=0) for publication in stream.entries]
        if reverse:
            found = [one for one in reversed(found) if since is None or one.offset < since]
        elif since is not None:
            found = [one for one in found if one.offset > since]
        return StreamRead(
            Position(stream.top, stream.epoch), found[: limit if limit >= 0 else None]
        )

    def suppressed(
        self, channel: str, history: HistoryPolicy, condition: PublishCondition
    ) -> ConditionalResult | None:
        """Why a publication is a repetition; None if it is to be published, which is noted."""
        key, version, version_epoch = condition
        position, end_ms = self.results.get((channel, key), (Position(0, ""), 0.0))
        if key and end_ms > _now_ms():
            return ConditionalResult(position, "idempotency_key")
        if not (version and history.size):
            return None
        stream = self.stream(channel, history)
        is_comparable = version_epoch in ("", stream.version_epoch)
        if stream.version and is_comparable and version <= stream.version:
            return ConditionalResult(Position(stream.top, stream.epoch), "version")
        stream.version, stream.version_epoch = version, version_epoch
        return None

    def send(self, channel: str, publication: Publication) -> None:
        for broker in self.brokers:
            if channel in broker.heard:
                broker.listener.publications(channel, [publication])

    def tell(self, channel: str, events: list[bytes]) -> None:
        """Send joins and leaves to the subscribers of a channel."""
        for broker in self.brokers:
            if events and channel in broker.heard:
                broker.listener.joins_and_leaves(channel, events)

    def sweep(self) -> dict[str, float]:
        now = _now_ms()
        for gone in [one for one in self.sessions.values() if one.expires_ms < now]:
            del self.sessions[gone.session.id]
            self.counters["expired"] += 1
        return {
            "tracked": float(len(self.sessions)),
            **{k: float(v) for k, v in self.counters.items()},
        }

    def cut(self) -> None:
        """Break every subscription; they are restored on a later iteration of the loop."""
        for broker in self.brokers:
            broker.lose_subscriptions()


class MemoryBroker:
    """See `cluster.broker.Broker`."""

    def __init__(self, store: MemoryStore, listener: BrokerListener) -> None:
        self.store = store
        self.listener = listener
        self.heard: set[str] = set()
        self.taken: dict[str, Acknowledged] = {}
        self.wanted: dict[str, list[asyncio.Future[None]]] = {}
        self._loop = asyncio.get_running_loop()
        store.brokers.append(self)

    def publish(
        self,
        channel: str,
        body: bytes,
        history: HistoryPolicy,
        accepted_ms: int,
        done: Callable[[Position | StoreError], None],
    ) -> None:
        if not self.store.is_up:
            done(StoreUnavailable("the store is away"))
            return

        def work() -> None:
            if not self.store.is_up:
                done(StoreUnavailable("the store went away"))
            else:
                done(self._publish(channel, body, history, accepted_ms))

        self._loop.call_soon(work)

    def _publish(
        self, channel: str, body: bytes, history: HistoryPolicy, accepted_ms: int
    ) -> Position:
        publication = Publication(0, "", body, accepted_ms)
        if history.size:
            publication = self.store.append(channel, body, history, accepted_ms)
        position = Position(publication.offset, publication.epoch)
        if self.store.delivers or not history.size:
            self.store.send(channel, publication)
        if history.size and channel in self.wanted:
            self.taken[channel] = Acknowledged(position, hash(body), self._loop.time())
        return position

    def publish_conditional(
        self,
        channel: str,
        body: bytes,
        history: HistoryPolicy,
        accepted_ms: int,
        condition: PublishCondition,
        done: Callable[[ConditionalResult | StoreError], None],
    ) -> None:
        def work() -> None:
            if not self.store.is_up:
                done(StoreUnavailable("the store is away"))
                return
            suppressed = self.store.suppressed(channel, history, condition)
            if suppressed is not None:
                done(suppressed)
                return
            position = self._publish(channel, body, history, accepted_ms)
            if condition.idempotency_key:
                key = (channel, condition.idempotency_key)
                self.store.results[key] = (position, _now_ms() + IDEMPOTENCY_MS)
            done(ConditionalResult(position, ""))

        self._loop.call_soon(work)

    def subscribe(self, channel: str) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        if channel in self.heard:
            future.set_result(None)
            return future
        waiters = self.wanted.get(channel)
        if waiters is None:
            waiters = self.wanted[channel] = []
            self._loop.call_soon(self._confirm, channel)
        waiters.append(future)
        return future

    def is_subscribed(self, channel: str) -> bool:
        return channel in self.heard

    def _confirm(self, channel: str) -> None:
        waiters = self.wanted.get(channel)
        if waiters is None:
            return
        if not self.store.is_up:
            self._loop.call_later(0.01, self._confirm, channel)
            return
        self.heard.add(channel)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        waiters.clear()

    def acknowledged(self, channel: str) -> Acknowledged | None:
        return self.taken.get(channel)

    def unsubscribe(self, channel: str, delivered: Acknowledged | None = None) -> None:
        self.heard.discard(channel)
        self.taken.pop(channel, None)
        for waiter in self.wanted.pop(channel, ()):
            if not waiter.done():
                waiter.set_exception(StoreUnavailable("the subscription was given up"))

    def lose_subscriptions(self) -> None:
        lost, self.heard = self.heard, set()
        for channel in lost:
            self._loop.call_soon(self._resume, channel)

    def _resume(self, channel: str) -> None:
        if channel in self.wanted:
            self._confirm(channel)
            self.listener.resumed(channel)

    async def read(
        self,
        channel: str,
        history: HistoryPolicy,
        *,
        since: int | None = None,
        limit: int = 0,
        reverse: bool = False,
        max_bytes: int = READ_MAX_BYTES,
        is_whole: bool = False,
        leaves_epoch: bool = True,
    ) -> StreamRead:
        await asyncio.sleep(0)
        if not self.store.is_up:
            self.store.refused += 1
            raise StoreUnavailable("the store is away")
        if not leaves_epoch and not self.store.has_stream(channel):
            return StreamRead(Position(0, ""), [])
        read = self.store.read(channel, history, since, limit, reverse)
        if is_whole and 0 < limit < read.top.offset - (since or 0):
            return StreamRead(read.top, [])
        return _cut(read, max_bytes, is_whole=is_whole)

    async def remove_history(self, channel: str) -> None:
        await asyncio.sleep(0)
        if not self.store.is_up:
            raise StoreUnavailable("the store is away")
        if self.store.has_stream(channel):
            self.store.streams[channel].entries.clear()

    async def renew_epoch(self, channel: str, epoch: str) -> Position:
        await asyncio.sleep(0)
        if not self.store.is_up:
            raise StoreUnavailable("the store is away")
        stream = self.store.streams[channel]
        if stream.epoch == epoch:
            stream.epoch = secrets.token_hex(4)
            for broker in self.store.brokers:
                if channel in broker.heard:
                    self._loop.call_soon(broker.listener.resumed, channel)
        return Position(stream.top, stream.epoch)


class MemoryControlBroker(MemoryBroker):
    """See `cluster.node.control.ControlBroker`."""

    def __init__(self, store: MemoryStore, listener: BrokerListener) -> None:
        super().__init__(store.control, listener)

    async def subscribers(self, channel: str) -> int:
        await asyncio.sleep(0)
        if not self.store.is_up:
            raise StoreUnavailable("the store is away")
        return sum(channel in one.heard for one in self.store.brokers)


def _cut(read: StreamRead, max_bytes: int, *, is_whole: bool) -> StreamRead:
    """Return as much of a read as the bytes allow: at least one publication, or all or none."""
    taken: list[Publication] = []
    for publication in read.publications:
        max_bytes -= len(publication.body)
        if max_bytes < 0 and (taken or is_whole):
            return StreamRead(read.top, [] if is_whole else taken, is_cut=True)
        taken.append(publication)
    return StreamRead(read.top, taken)
