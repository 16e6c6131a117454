"""Keeps the hub's channels complete: subscribes them at the broker, fills gaps, checks positions.

Guarantees, for channels with history: a joiner misses nothing between what its read of the stream
returned and what is written to it afterwards, and gets nothing twice; a gap is filled from the stream
before anything newer is delivered; if the stream no longer has it, `on_insufficient` is called
for every subscriber; the lost last publication of an idle channel is found by comparing its
position with the stream's top.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from cluster.broker import Acknowledged, Broker, BrokerListener, HistoryPolicy, StreamRead
from cluster.errors import INTERNAL, StoreError, StoreRefused
from cluster.hub import HELD_LIMIT, Channel, Hub
from cluster.log import get_logger
from cluster.metrics.counters import Counters
from cluster.node.members import MemberClient, Members, Membership
from cluster.node.permissions import ChannelPermissions
from cluster.node.reads import StreamReads
from cluster.protocol import Position, Publication
from cluster.shared_timeout import SharedTimeout
from cluster.subscriber_groups import Delivery, Write

log = get_logger()

_FILL_BACKOFF_SECONDS = 0.1
_FILL_BACKOFF_LIMIT_SECONDS = 1.0
_FILL_REFUSALS = 5
_REFILL_SECONDS = 0.01
_CHECK_BATCH = 500

#: How long a client may wait for its turn to recover, and all channels of a connect together: it may have read
#: much before, or take nothing, and the channel keeps what it may miss. SDKs give up after 5 to 10 seconds.
JOIN_SECONDS: Final = 30.0


class RecoveryLimits(NamedTuple):
    """What a joiner may recover at most; more is not read."""

    publications: int
    bytes: int


class Joining(NamedTuple):
    """A client that has read the stream of a channel and has not joined it yet.

    Attributes:
        read: the stream's top and the publications asked for; None in a channel without history.
        membership: None in a channel without presence, joins and leaves.
        delivery: how its publications will be prepared, None if it gets them as they are.
        start: where it has begun; with it `abort` and `join` free what is kept for it alone.
    """

    channel: Channel
    read: StreamRead | None
    membership: Membership | None = None
    delivery: Delivery | None = None
    start: int | None = None


class Channels:
    """The channels of one worker.

    Args:
        open_broker: makes the broker for the listener of its publications, which is this object.
        timeout_seconds: how long a join may take.
        check_seconds: how long a channel may be idle before its position is compared.
        on_insufficient: called with a subscriber and a channel whose publications it has lost.
        members: keeps the presence of the channels; None for no presence, joins and leaves.
    """

    def __init__(
        self,
        hub: Hub,
        permissions: ChannelPermissions,
        reads: StreamReads,
        counters: Counters,
        *,
        open_broker: Callable[[BrokerListener], Broker],
        timeout_seconds: float,
        check_seconds: float,
        on_insufficient: Callable[[object, str], None],
        members: Members | None = None,
    ) -> None:
        self._hub = hub
        self._permissions = permissions
        self._reads = reads
        self._counters = counters
        self._timeout_seconds = timeout_seconds
        self._join_timeout = SharedTimeout(timeout_seconds)
        self._check_seconds = check_seconds
        self._on_insufficient = on_insufficient
        self._members = members
        self._loop = asyncio.get_running_loop()
        self._fills: dict[Channel, asyncio.Task[None]] = {}
        self._rechecks: set[str] = set()
        self.broker = open_broker(self)

    # --- joining and leaving ---------------------------------------------------------------

    def begin_now(
        self, name: str, policy: HistoryPolicy, recover_from: Position | None
    ) -> Joining | None:
        """Prepare a join to a channel that this worker serves, if the store is not needed for it.

        Returns:
            What `begin` returns, or None: then `begin` is needed.
        """
        channel = self._hub.channels.get(name)
        if channel is None:
            return None
        read: StreamRead | None = None
        if policy.size:
            if not self._is_caught_up(channel, recover_from):
                return None
            read = StreamRead(channel.position, [])
        elif not self.broker.is_subscribed(name):
            return None
        self._hub.join_begin(name, is_positioned=policy.size > 0)
        return Joining(channel, read, start=channel.newest_start)

    def _is_caught_up(self, channel: Channel, recover_from: Position | None) -> bool:
        """Whether a joiner has the channel's position, so that nothing need be read for it.

        Whatever the channel's subscription misses is found for all of its subscribers.
        """
        return (
            channel.has_position
            and not channel.is_held
            and recover_from in (None, channel.position)
        )

    async def begin(
        self,
        name: str,
        policy: HistoryPolicy,
        recover_from: Position | None,
        limits: RecoveryLimits,
        reader: object,
        newest: int = 0,
    ) -> Joining:
        """Prepare a join; `join` or `abort` must follow, with nothing awaited before.

        Args:
            recover_from: the position after which publications are read, None for none.
            limits: if the publications are more, none are read.
            reader: for whom they are read.
            newest: how many of the newest publications are read instead, newest first; 0 for none.

        Raises:
            ClientError: 100 when the store is unavailable or too slow, 111 when the reader has no turn within
                `JOIN_SECONDS`.
            Disconnect: 3000 when the reader has gone meanwhile.
        """
        channel, is_new = self._hub.join_begin(name, is_positioned=policy.size > 0)
        start = channel.newest_start
        if not newest and self._is_caught_up(channel, recover_from):
            return Joining(channel, StreamRead(channel.position, []), start=start)
        if is_new:
            # Spread, so that channels that were subscribed together are not checked together.
            channel.active_at = self._loop.time() - random.uniform(0, self._check_seconds / 2)
        try:
            with self._join_timeout():
                await self.broker.subscribe(name)
            read = await self._read_for(channel, policy, recover_from, limits, reader, newest)
        except (StoreError, TimeoutError) as error:
            self.abort(channel, start)
            self._counters.errors["broker"] += 1
            log.error("subscribe_failed", reason=str(error) or "the store is too slow")
            raise INTERNAL.fresh() from None
        except BaseException:
            self.abort(channel, start)
            raise
        return Joining(channel, read, start=start)

    async def _read_for(
        self,
        channel: Channel,
        policy: HistoryPolicy,
        recover_from: Position | None,
        limits: RecoveryLimits,
        reader: object,
        newest: int,
    ) -> StreamRead | None:
        if not policy.size:
            return None
        if recover_from is None:
            with self._join_timeout():
                return await self.broker.read(channel.name, policy)
        turn = self._reads.turn(reader, within=JOIN_SECONDS)
        async with turn, asyncio.timeout(self._timeout_seconds):
            if newest:
                return await self.broker.read(
                    channel.name, policy, limit=newest, reverse=True, max_bytes=limits.bytes
                )
            read = await self.broker.read(
                channel.name,
                policy,
                since=recover_from.offset,
                limit=limits.publications,
                max_bytes=limits.bytes,
                is_whole=True,
            )
            await self._reads.handled_alone(reader, read.publications)
            return read

    def join(self, joining: Joining, subscriber: object, write: Write) -> None:
        """Make the joiner a subscriber; call right after its reply has been written."""
        channel = joining.channel
        top = joining.read.top if joining.read is not None else Position(0, "")
        is_whole = self._hub.join(channel, subscriber, write, top, joining.delivery, joining.start)
        if joining.membership is not None and self._members is not None:
            self._members.enter(channel.name, cast(MemberClient, subscriber), joining.membership)
        if channel.name in self._rechecks or (top.epoch and top.epoch != channel.epoch):
            self._rechecks.discard(channel.name)
            self._hub.hold(channel)
        if channel.is_held and channel.has_position:
            self._fill_soon(channel)
        if not is_whole:
            self._on_insufficient(subscriber, channel.name)

    def abort(self, channel: Channel, start: int | None = None) -> None:
        """Give a prepared join up; `start` as in `Joining`."""
        if self._hub.join_abort(channel, start):
            self._forget(channel)

    def leave(self, name: str, subscriber: object) -> None:
        """Remove a subscriber."""
        if self._members is not None:
            self._members.leave(name, cast(MemberClient, subscriber))
        channel = self._hub.channels.get(name)
        if channel is not None and self._hub.leave(name, subscriber):
            self._forget(channel)

    def _forget(self, channel: Channel) -> None:
        self._rechecks.discard(channel.name)
        delivered = None
        if channel.last:
            delivered = Acknowledged(channel.position, hash(channel.last), channel.active_at)
        self.broker.unsubscribe(channel.name, delivered)

    # --- from the broker -------------------------------------------------------------------

    def publications(self, name: str, publications: list[Publication]) -> None:
        """Fan a batch out; see `BrokerListener`."""
        gap = self._hub.deliver(name, publications)
        channel = self._hub.channels.get(name)
        if channel is not None:
            channel.active_at = self._loop.time()
        delivery, now_ms = self._counters.publish_to_delivery, time.time() * 1000
        for publication in publications:
            if publication.accepted_ms:
                delivery.observe(max(0.0, now_ms - publication.accepted_ms) / 1000)
        if gap is not None:
            log.warning("gap_found", publications=len(gap.held))
            self._fill_soon(gap)

    def joins_and_leaves(self, name: str, events: list[bytes]) -> None:
        """Pass on the joins and leaves of a channel; see `BrokerListener`."""
        if self._members is not None:
            self._members.receive(name, events)

    def resumed(self, name: str) -> None:
        """Compare the channel with its stream; see `BrokerListener`."""
        channel = self._hub.channels.get(name)
        if channel is None or not channel.is_positioned:
            return
        if channel.has_position and self._hub.hold(channel):
            self._fill_soon(channel)
        else:
            # A read in progress may have been too early to see what was missed.
            self._rechecks.add(name)

    # --- gaps ------------------------------------------------------------------------------

    def _fill_soon(self, channel: Channel) -> None:
        if channel not in self._fills:
            self._fills[channel] = self._loop.create_task(self._fill(channel), name="fill")

    async def _fill(self, channel: Channel) -> None:
        try:
            await self._fill_until_whole(channel)
        finally:
            # Nothing was awaited since `is_held` was checked, so no gap falls in between.
            del self._fills[channel]

    async def _fill_until_whole(self, channel: Channel) -> None:
        backoff, refusals, logged = _FILL_BACKOFF_SECONDS, 0, ""
        while self._hub.channels.get(channel.name) is channel and channel.is_held:
            policy = self._permissions.history(channel.name)
            try:
                async with self._reads.turn(channel), asyncio.timeout(self._timeout_seconds):
                    held_before = len(channel.held)
                    # Known before the read is sent: the store that answers it must have this.
                    acknowledged = self.broker.acknowledged(channel.name)
                    # With the publication that was delivered last, if it is known: after a failover
                    # the stream may have another one in its place.
                    since = channel.offset - bool(channel.last)
                    read = await self.broker.read(
                        channel.name, policy, since=since, limit=HELD_LIMIT + 1
                    )
                    missing, is_replaced = _after_last(channel, read)
                    is_replaced = is_replaced or _lacks(channel, read, acknowledged)
                    top = read.top
                    if is_replaced:
                        # What clients know of this epoch is not what the stream has.
                        top = await self.broker.renew_epoch(channel.name, channel.epoch)
            except (StoreError, TimeoutError) as error:
                if isinstance(error, StoreRefused):
                    # The server answers with a refusal: waiting may never help.
                    refusals += not error.is_temporary
                    self._counters.errors["broker"] += 1
                    if logged != str(error):
                        logged = str(error)
                        log.error("fill_refused", reason=logged)
                if refusals >= _FILL_REFUSALS:
                    self._insufficient(channel)
                    self._hub.release(channel)
                    return
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
                backoff = min(backoff * 2, _FILL_BACKOFF_LIMIT_SECONDS)
                continue
            if self._hub.channels.get(channel.name) is not channel:
                return
            if read.is_cut and not is_replaced and self._hub.fill_part(channel, top, missing):
                continue
            if not self._hub.fill(
                channel, top, missing, held_before=held_before, is_replaced=is_replaced
            ):
                self._insufficient(channel)
                self._hub.release(channel)
            if channel.name in self._rechecks:
                self._rechecks.discard(channel.name)
                self._hub.hold(channel)
            if channel.is_held:
                await asyncio.sleep(_REFILL_SECONDS)

    def _insufficient(self, channel: Channel) -> None:
        subscribers = channel.subscribers
        log.error("publications_lost", subscribers=len(subscribers))
        self._counters.dropped["broker"] += len(subscribers)
        for subscriber in subscribers:
            self._on_insufficient(subscriber, channel.name)

    # --- idle channels ---------------------------------------------------------------------

    async def check_positions(self) -> None:
        """Compare idle channels with their streams until cancelled."""
        while True:
            await asyncio.sleep(self._check_seconds / 20)
            limit = self._loop.time() - self._check_seconds
            idle = [
                channel
                for channel in self._hub.channels.values()
                if channel.active_at < limit and channel.has_position and not channel.is_held
            ]
            for first in range(0, len(idle), _CHECK_BATCH):
                batch = idle[first : first + _CHECK_BATCH]
                await asyncio.gather(*(self._check(channel) for channel in batch))

    async def _check(self, channel: Channel) -> None:
        channel.active_at = self._loop.time()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                read = await self.broker.read(channel.name, self._permissions.history(channel.name))
        except (StoreError, TimeoutError):
            return  # The link reports it; the next round checks again.
        # A lower offset is that of a store that has lost publications.
        if read.top != channel.position and self._hub.hold(channel):
            self._fill_soon(channel)


def _lacks(channel: Channel, read: StreamRead, acknowledged: Acknowledged | None) -> bool:
    """Whether the store has lost a publication that was acknowledged and not delivered, or replaced it."""
    if acknowledged is None or acknowledged.position.epoch != read.top.epoch:
        return False
    offset, body_hash = acknowledged.position.offset, acknowledged.body_hash
    if offset <= channel.offset:
        return False
    if read.top.offset < offset:
        return True
    return any(one.offset == offset and hash(one.body) != body_hash for one in read.publications)


def _after_last(channel: Channel, read: StreamRead) -> tuple[list[Publication], bool]:
    """What a read brought after the channel's position, and whether the store has lost what is before.

    It has if it ends before the position, or has another publication there: a replica that became the
    master without the last publications gives their offsets to others.
    """
    publications = read.publications
    is_lost = read.top.epoch == channel.epoch and read.top.offset < channel.offset
    if publications and publications[0].offset == channel.offset:
        return publications[1:], is_lost or publications[0].body != channel.last
    return publications, is_lost
