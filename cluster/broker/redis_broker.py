"""The broker over Redis or Valkey: streams for history, sharded pub/sub for delivery.

Of a channel there are `.meta` (hash: o top offset, e epoch, v version, ve its epoch), `.stream` (id =
offset), `.result.<hash of an idempotency key>` (hash: o offset, e epoch), and the shard channel `.pub` with
payloads `1:offset:epoch:accepted_ms:body`, `2:` with joins and leaves, one a line
(`cluster.presence.redis_presence` sends them), and `3:` when an epoch was ended because the store has lost
publications; `cluster.resp.keys` has their names. All
keys of a channel share one hash tag, so that one script may touch them in a Redis Cluster. A
payload of another form is counted and ignored: two versions may share the store during a roll.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import string
from collections.abc import Callable
from typing import Any, Final

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
from cluster.errors import StoreError
from cluster.metrics.counters import Counters
from cluster.protocol import Position, Publication
from cluster.resp.keys import KIND_CHANNEL
from cluster.resp.router import Router
from cluster.resp.scripts import PUBLISH, PUBLISH_CONDITIONAL, READ_STREAM, RENEW_EPOCH
from cluster.resp.shard import Shard
from cluster.resp.subscriptions import Subscriptions

_NOWHERE = Position(0, "")
_JOINS_AND_LEAVES = b"2:"
_EPOCH_ENDED = b"3:"
#: Of so many channels without a subscriber here, at least, the last publication is remembered: about 3 MiB.
REMEMBERED: Final = 10_000


class RedisBroker:
    """See `Broker` for the guarantees.

    Args:
        prefix: of every key of this cluster; see `key_prefix`.
        listener: receives the publications.
    """

    def __init__(
        self,
        router: Router,
        subscriptions: Subscriptions,
        *,
        prefix: str,
        listener: BrokerListener,
        counters: Counters,
    ) -> None:
        self._router = router
        self._subscriptions = subscriptions
        self._prefix = f"{prefix}:{KIND_CHANNEL}"
        self._listener = listener
        self._counters = counters
        self._spare_epoch = new_epoch()
        # Of each subscribed channel, the last publication that was acknowledged here; of others, that or
        # what was delivered last, in `_recent`, which becomes `_older` when it is full.
        self._acknowledged: dict[str, Acknowledged | None] = {}
        self._recent: dict[str, Acknowledged] = {}
        self._older: dict[str, Acknowledged] = {}

    def _key(self, channel: str, part: str) -> str:
        return f"{{{self._prefix}:{channel}}}.{part}"

    def publish(
        self,
        channel: str,
        body: bytes,
        history: HistoryPolicy,
        accepted_ms: int,
        done: Callable[[Position | StoreError], None],
    ) -> None:
        shard_channel = self._key(channel, "pub")

        def answered(reply: Any) -> None:
            if isinstance(reply, StoreError):
                done(reply)
            elif history.size:
                position = Position(reply[0], self._used(reply[1].decode()))
                self._keep(channel, position, body)
                done(position)
            else:
                done(_NOWHERE)

        if history.size:
            self._router.run_script(
                PUBLISH,
                (self._key(channel, "meta"), self._key(channel, "stream")),
                (
                    body, history.size, history.ttl_ms, history.meta_ttl_ms,
                    self._spare_epoch, accepted_ms, shard_channel,
                ),
                answered,
            )  # fmt: skip
        else:
            payload = b"1:0::%d:%b" % (accepted_ms, body)
            command = ("SPUBLISH", shard_channel, payload)
            self._router.submit(shard_channel, command, answered, keeps_order=True)

    def publish_conditional(
        self,
        channel: str,
        body: bytes,
        history: HistoryPolicy,
        accepted_ms: int,
        condition: PublishCondition,
        done: Callable[[ConditionalResult | StoreError], None],
    ) -> None:
        key, version, version_epoch = condition

        def answered(reply: Any) -> None:
            if isinstance(reply, StoreError):
                done(reply)
                return
            offset, epoch, suppressed_by = reply
            position = Position(offset, self._used(epoch.decode()))
            if history.size and not suppressed_by:
                self._keep(channel, position, body)
            done(ConditionalResult(position, suppressed_by.decode()))

        # The first key is the one that `publish` routes by, so that their order is kept.
        parts = ("meta" if history.size else "pub", "stream", f"result.{_hash(key)}")
        self._router.run_script(
            PUBLISH_CONDITIONAL,
            tuple(self._key(channel, part) for part in parts),
            (
                body, history.size, history.ttl_ms, history.meta_ttl_ms, self._spare_epoch,
                accepted_ms, self._key(channel, "pub"), IDEMPOTENCY_MS if key else "",
                version or "", version_epoch,
            ),
            answered,
        )  # fmt: skip

    def subscribe(self, channel: str) -> asyncio.Future[None]:
        self._acknowledged.setdefault(channel, None)
        return self._subscriptions.subscribe(
            self._key(channel, "pub"), channel, self._received, self._listener.resumed
        )

    def is_subscribed(self, channel: str) -> bool:
        return self._subscriptions.is_confirmed(self._key(channel, "pub"))

    def acknowledged(self, channel: str) -> Acknowledged | None:
        return self._acknowledged.get(channel)

    def unsubscribe(self, channel: str, delivered: Acknowledged | None = None) -> None:
        for one in (delivered, self._acknowledged.pop(channel, None)):
            known = self._recent.get(channel)
            if one is not None and (known is None or one.at >= known.at):
                self._remember(channel, one)
        self._subscriptions.unsubscribe(self._key(channel, "pub"))

    def _keep(self, channel: str, position: Position, body: bytes) -> None:
        acknowledged = Acknowledged(position, hash(body), asyncio.get_running_loop().time())
        if channel in self._acknowledged:
            self._acknowledged[channel] = acknowledged
        else:
            self._remember(channel, acknowledged)

    def _remember(self, channel: str, acknowledged: Acknowledged) -> None:
        self._recent[channel] = acknowledged
        if len(self._recent) >= REMEMBERED:
            self._older, self._recent = self._recent, {}

    def remembered(self, shard: Shard) -> dict[str, Acknowledged]:
        """What was acknowledged here, or delivered before the last subscriber left, in channels of a server."""
        subscribed = {name: one for name, one in self._acknowledged.items() if one is not None}
        known = self._older | self._recent | subscribed
        owner = self._router.shard_of
        return {name: one for name, one in known.items() if owner(self._key(name, "meta")) is shard}

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
        first, last = "-", "+"
        if since is not None and reverse:
            last = f"({since}-0"
        elif since is not None:
            first = f"({since}-0"
        offset, epoch, entries, is_cut = await self._router.call_script(
            READ_STREAM,
            (self._key(channel, "meta"), self._key(channel, "stream")),
            (
                self._spare_epoch if leaves_epoch else "", history.meta_ttl_ms, first, last, limit,
                int(reverse), max_bytes, since if is_whole and since is not None else "",
            ),
        )  # fmt: skip
        top = Position(offset, self._used(epoch.decode()))
        return StreamRead(
            top,
            [Publication(int(id_.split(b"-")[0]), top.epoch, fields[1]) for id_, fields in entries],
            bool(is_cut),
        )

    async def remove_history(self, channel: str) -> None:
        key = self._key(channel, "stream")
        await self._router.call(key, "DEL", key)

    async def renew_epoch(self, channel: str, epoch: str) -> Position:
        offset, now = await self._router.call_script(
            RENEW_EPOCH,
            (self._key(channel, "meta"),),
            (epoch, self._spare_epoch, self._key(channel, "pub")),
        )
        return Position(offset, self._used(now.decode()))

    def _used(self, epoch: str) -> str:
        """Make a new spare epoch if a stream has used the present one.

        Eight random letters cost more than the rest of a publish, and few streams are new.
        """
        if epoch == self._spare_epoch:
            self._spare_epoch = new_epoch()
        return epoch

    def _received(self, channel: str, payloads: list[bytes]) -> None:
        publications = []
        events: list[bytes] = []
        is_ended = False
        for payload in payloads:
            publication = _parse(payload)
            if publication is None and payload.startswith(_JOINS_AND_LEAVES):
                events += payload.removeprefix(_JOINS_AND_LEAVES).split(b"\n")
            elif publication is None and payload == _EPOCH_ENDED:
                is_ended = True
            elif publication is None:
                self._counters.errors["broker"] += 1
            else:
                publications.append(publication)
        if publications:
            self._listener.publications(channel, publications)
        if events:
            self._listener.joins_and_leaves(channel, events)
        if is_ended:
            self._listener.resumed(channel)


def _parse(payload: bytes) -> Publication | None:
    try:
        layout, offset, epoch, accepted_ms, body = payload.split(b":", 4)
        publication = Publication(int(offset), epoch.decode(), body, int(accepted_ms))
    except ValueError:
        return None
    return publication if layout == b"1" else None


def _hash(key: str) -> str:
    """A key's part of a name: of one length, and no name of another channel whatever the key is."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def new_epoch() -> str:
    """Eight random letters, as Centrifugo's epochs are."""
    return "".join(secrets.choice(string.ascii_letters) for _ in range(8))
