"""A broker that does each step only when a test asks for it, and an event loop with a manual clock.

What the server sends to the worker's subscriptions is a queue of messages and confirmations; requests
on the command link wait to be executed and then to be answered. So a schedule can put anything between
any two steps, as a network can.
"""

from __future__ import annotations

import asyncio
import heapq
import secrets
from collections import deque
from collections.abc import Callable
from typing import Any

from cluster.broker import (
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

#: Iterations of the loop after which everything that needs no step has happened.
TURNS = 12


class StillLoop(asyncio.SelectorEventLoop):
    """Time moves only in `pass_time`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def settle(self) -> None:
        """Run whatever is ready."""

        async def turns() -> None:
            for _ in range(TURNS):
                await asyncio.sleep(0)

        self.run_until_complete(turns())

    def pass_time(self, seconds: float) -> None:
        """Let timers fire in order until `seconds` have passed."""
        until = self.now + seconds
        scheduled: list[Any] = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0].when() <= until:
            self.now = max(self.now, heapq.nsmallest(1, scheduled)[0].when())
            self.settle()
        self.now = until
        self.settle()


class ScriptedStream:
    """One channel on the server; `log` has every publication ever made."""

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(4)
        self.top = 0
        self.entries: deque[Publication] = deque()
        self.log: dict[bytes, Position] = {}

    def publish(self) -> Publication:
        self.top += 1
        body = b'{"data":%d}' % len(self.log)
        self.log[body] = Position(self.top, self.epoch)
        publication = Publication(self.top, self.epoch, body)
        self.entries.append(publication)
        return publication

    def reset(self) -> None:
        self.epoch, self.top = secrets.token_hex(4), 0
        self.entries.clear()

    def read(self, since: int | None, limit: int) -> StreamRead:
        found = [one for one in self.entries if since is None or one.offset > since]
        return StreamRead(Position(self.top, self.epoch), found[:limit])


class ScriptedBroker:
    """See `cluster.broker.Broker`; nothing happens until a test calls one of the steps below."""

    def __init__(self, listener: BrokerListener) -> None:
        self.listener = listener
        self.streams: dict[str, ScriptedStream] = {}
        self.served: set[str] = set()
        self.in_flight: deque[tuple[str, Publication | None]] = deque()
        self.wanted: dict[str, list[asyncio.Future[None]]] = {}
        self.unconfirmed: dict[str, int] = {}
        self.was_confirmed: set[str] = set()
        self.asked: deque[tuple[asyncio.Future[StreamRead], Callable[[], StreamRead]]] = deque()
        self.read_out: deque[tuple[asyncio.Future[StreamRead], StreamRead]] = deque()

    def stream(self, channel: str) -> ScriptedStream:
        return self.streams.setdefault(channel, ScriptedStream())

    # --- Broker ------------------------------------------------------------------------------

    def publish(
        self,
        channel: str,
        body: bytes,
        history: HistoryPolicy,
        accepted_ms: int,
        done: Callable[[Position | StoreError], None],
    ) -> None:
        raise NotImplementedError("the schedule publishes")

    def publish_conditional(
        self,
        channel: str,
        body: bytes,
        history: HistoryPolicy,
        accepted_ms: int,
        condition: PublishCondition,
        done: Callable[[ConditionalResult | StoreError], None],
    ) -> None:
        raise NotImplementedError("the schedule publishes")

    def subscribe(self, channel: str) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if channel not in self.wanted:
            self.wanted[channel] = []
            self.was_confirmed.discard(channel)
            self._serve(channel)
        if self.is_subscribed(channel):
            future.set_result(None)
        else:
            self.wanted[channel].append(future)
        return future

    def is_subscribed(self, channel: str) -> bool:
        return channel in self.was_confirmed and not self.unconfirmed[channel]

    def _serve(self, channel: str) -> None:
        self.served.add(channel)
        self.unconfirmed[channel] = self.unconfirmed.get(channel, 0) + 1
        self.in_flight.append((channel, None))

    def acknowledged(self, channel: str) -> Acknowledged | None:
        return None

    def unsubscribe(self, channel: str, delivered: Acknowledged | None = None) -> None:
        self.served.discard(channel)
        for waiter in self.wanted.pop(channel, ()):
            if not waiter.done():
                waiter.set_exception(StoreUnavailable("the subscription was given up"))

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
        future: asyncio.Future[StreamRead] = asyncio.get_running_loop().create_future()
        self.asked.append((future, lambda: self.stream(channel).read(since, limit)))
        return await future

    async def remove_history(self, channel: str) -> None:
        self.stream(channel).entries.clear()

    async def renew_epoch(self, channel: str, epoch: str) -> Position:
        stream = self.stream(channel)
        if stream.epoch == epoch:
            stream.epoch = secrets.token_hex(4)
        return Position(stream.top, stream.epoch)

    # --- steps -------------------------------------------------------------------------------

    def publish_now(self, channel: str, *, is_lost: bool) -> None:
        publication = self.stream(channel).publish()
        if channel in self.served and not is_lost:
            self.in_flight.append((channel, publication))

    def send_stray(self, channel: str, publication: Publication) -> None:
        if channel in self.served:
            self.in_flight.append((channel, publication))

    def bring(self, count: int) -> None:
        """One read of the subscription link: confirmations at once, messages batched."""
        batches: dict[str, list[Publication]] = {}
        for _ in range(min(count, len(self.in_flight))):
            channel, publication = self.in_flight.popleft()
            if publication is None:
                self._confirmed(channel)
            elif channel in self.wanted:
                batches.setdefault(channel, []).append(publication)
        for channel, publications in batches.items():
            self.listener.publications(channel, publications)

    def _confirmed(self, channel: str) -> None:
        self.unconfirmed[channel] = max(0, self.unconfirmed.get(channel, 0) - 1)
        if channel not in self.wanted or self.unconfirmed[channel]:
            return
        for waiter in self.wanted[channel]:
            if not waiter.done():
                waiter.set_result(None)
        self.wanted[channel].clear()
        if channel in self.was_confirmed:
            self.listener.resumed(channel)
        self.was_confirmed.add(channel)

    def break_subscriptions(self) -> None:
        """Lose the link and what was in flight; it is restored and subscribes to everything again."""
        self.in_flight.clear()
        self.served.clear()
        self.unconfirmed.clear()
        for channel in self.wanted:
            self._serve(channel)

    def carry_out_read(self) -> None:
        if self.asked:
            future, work = self.asked.popleft()
            self.read_out.append((future, work()))

    def answer_read(self) -> None:
        if self.read_out:
            future, read = self.read_out.popleft()
            if not future.done():
                future.set_result(read)

    def fail_reads(self) -> None:
        waiting = [future for future, _ in (*self.asked, *self.read_out)]
        self.asked.clear()
        self.read_out.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(StoreUnavailable("the connection to the store broke"))
