"""The members of one worker's channels: their presence, and the joins and leaves that they cause.

A subscription that has presence, or publishes joins and leaves, is a member: tokens, handlers and the server
API may give each of a channel another mode. The changes of one turn of the event loop go to the store in order,
one command per channel for those that follow each other with one mode. Entries are renewed every `client.presence_update_interval`, all of a channel together, and the first time at a random point in the
second half of it.

A worker that was killed leaves its entries behind. A renewal says when the first entry of its channel
expires; if that is before the next renewal, the channel is swept then, so the leaves come when the
lease ends, at no cost while all workers live. After the store has failed nothing is swept for one interval:
the entries of live workers have become old, and are renewed first.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import itertools
import random
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Final, NamedTuple, Protocol

from cluster.codec import Codec
from cluster.config import ClientConfig
from cluster.errors import StoreError
from cluster.log import get_logger
from cluster.metrics.counters import Counters
from cluster.node.join_leave import JoinLeavePushes
from cluster.presence import ADD, JOIN, LEAVE, Change, PresenceMode, PresenceStore, Renewed
from cluster.presence.client_info import client_info

log = get_logger()

#: Changes that are sent in one turn of the event loop; the rest goes in the next ones.
_CHANGES_PER_TURN: Final = 1000
#: What one command has at most, because it holds the store: changes, their bytes, renewed entries.
_CHANGES_AT_A_TIME: Final = 200
_BYTES_AT_A_TIME: Final = 65536
_RENEWED_AT_A_TIME: Final = 200
_RENEWALS_IN_FLIGHT: Final = 32
_RETRY_SECONDS: Final = 3.0
_SWEEP_DELAY_SECONDS: Final = 0.05


class MemberConnection(Protocol):
    """What is known of a member: the connection that has subscribed."""

    @property
    def user(self) -> str: ...

    @property
    def client(self) -> str: ...

    @property
    def info(self) -> bytes: ...

    @property
    def codec(self) -> Codec: ...


class MemberClient(Protocol):
    """A client that subscribes; see `cluster.node.client_protocol.Client`."""

    @property
    def connection(self) -> MemberConnection: ...

    def write(self, data: bytes) -> None: ...


class Membership(NamedTuple):
    """What a subscription is in its channel, beside receiving publications.

    Attributes:
        gets_pushes: whether joins and leaves are sent to it.
        chan_info: JSON text of its subscription token, b"" for none.
    """

    mode: PresenceMode
    gets_pushes: bool
    chan_info: bytes = b""


def membership_of(mode: PresenceMode, *, gets_pushes: bool, chan_info: bytes = b"") -> Membership:
    """What a subscription of a channel is; without joins and leaves there is nothing to push."""
    # Each member keeps its own, so those without info share the few there are; the others their modes.
    shared = _without_info(mode, gets_pushes=gets_pushes and mode.is_published)
    return Membership(*shared[:2], chan_info) if chan_info else shared


@functools.cache
def _without_info(mode: PresenceMode, *, gets_pushes: bool) -> Membership:
    return Membership(mode, gets_pushes)


class _Channel:
    """The members of one channel at this worker, by subscriber; `entries` of them have one in the store."""

    __slots__ = ("changes", "entries", "members", "name", "renew_at", "renewed_at", "sweep_at")

    def __init__(self, name: str) -> None:
        self.name = name
        self.entries = 0
        self.members: dict[MemberClient, Membership] = {}
        self.changes: deque[tuple[bytes, MemberClient, Membership]] = deque()
        self.renewed_at = 0.0
        self.renew_at = 0.0
        self.sweep_at = 0.0


class Members:
    """The members of one worker's channels.

    Args:
        interval_seconds: time between two renewals of an entry.
        ttl_seconds: how long an entry lives in the store.

    Attributes:
        entries: members that have an entry in the store.
    """

    def __init__(
        self,
        store: PresenceStore,
        pushes: JoinLeavePushes,
        counters: Counters,
        *,
        interval_seconds: float,
        ttl_seconds: float,
    ) -> None:
        self.entries = 0
        self._store = store
        self._pushes = pushes
        self._counters = counters
        self._interval = interval_seconds
        self._ttl = ttl_seconds
        self._loop = asyncio.get_running_loop()
        self._channels: dict[str, _Channel] = {}
        self._changed: deque[_Channel] = deque()
        self._is_flush_due = False
        self._due: list[tuple[float, int, _Channel]] = []
        self._numbers = itertools.count()
        self._in_flight = 0
        self._renewing = 0
        self._is_answered = asyncio.Event()
        self._failed_at = float("-inf")
        self._has_warned = False

    # --- joining and leaving -----------------------------------------------------------------

    def enter(self, name: str, subscriber: MemberClient, membership: Membership) -> None:
        """A client has subscribed; its join follows in this turn of the loop."""
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel(name)
        channel.members[subscriber] = membership
        if membership.mode.has_entries:
            if not channel.entries:
                now = channel.renewed_at = self._loop.time()
                self._renew_at(channel, now + self._interval * random.uniform(0.5, 1.0))
            channel.entries += 1
            self.entries += 1
        if membership.gets_pushes:
            self._pushes.watch(name, subscriber, subscriber.connection.codec)
        self._change(channel, JOIN, subscriber, membership)

    def leave(self, name: str, subscriber: MemberClient) -> None:
        """A client has left a channel; its leave follows in this turn of the loop."""
        channel = self._channels.get(name)
        if channel is None:
            return
        membership = channel.members.pop(subscriber, None)
        if membership is None:
            return
        channel.entries -= membership.mode.has_entries
        self.entries -= membership.mode.has_entries
        self._pushes.unwatch(name, subscriber)
        self._change(channel, LEAVE, subscriber, membership)

    def update(self, subscriber: MemberClient, chan_infos: Mapping[str, bytes]) -> None:
        """The info of a client has changed: its entries follow in this turn of the loop.

        Args:
            chan_infos: of its subscriptions, by channel.
        """
        for name, chan_info in chan_infos.items():
            channel = self._channels.get(name)
            before = channel.members.get(subscriber) if channel is not None else None
            if channel is None or before is None:
                continue
            now = membership_of(before.mode, gets_pushes=before.gets_pushes, chan_info=chan_info)
            channel.members[subscriber] = now
            if now.mode.has_entries:
                self._change(channel, ADD, subscriber, now)

    def receive(self, name: str, events: list[bytes]) -> None:
        """Joins and leaves of a channel have arrived; see `BrokerListener`."""
        self._pushes.receive(name, events)

    def _change(
        self, channel: _Channel, kind: bytes, subscriber: MemberClient, membership: Membership
    ) -> None:
        if not channel.changes:
            self._changed.append(channel)
        channel.changes.append((kind, subscriber, membership))
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def send_changes(self) -> None:
        """Send the changes of this turn now, so that they come before what is asked next."""
        if self._changed:
            self._send_some()

    def _flush(self) -> None:
        self._is_flush_due = False
        self._send_some()
        if self._changed:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _send_some(self) -> None:
        left = _CHANGES_PER_TURN
        while self._changed and left > 0:
            channel = self._changed[0]
            left -= self._send(channel)
            if not channel.changes:
                self._changed.popleft()
                if not channel.members and self._channels.get(channel.name) is channel:
                    del self._channels[channel.name]

    def _send(self, channel: _Channel) -> int:
        """Send the first changes of a channel, as far as they have one mode; returns how many."""
        batch: list[Change] = []
        size = 0
        mode = channel.changes[0][2].mode
        while channel.changes and len(batch) < _CHANGES_AT_A_TIME and size < _BYTES_AT_A_TIME:
            kind, subscriber, membership = channel.changes[0]
            if membership.mode != mode:
                break
            channel.changes.popleft()
            one = _encoded(kind, subscriber, membership.chan_info)
            batch.append(one)
            size += len(one.info)
        self._in_flight += 1
        self._store.change(channel.name, batch, mode, partial(self._sent, channel))
        return len(batch)

    def _sent(self, channel: _Channel, error: StoreError | None) -> None:
        self._answered()
        if error is None:
            self._worked()
            return
        self._failed("presence_change_failed", error)
        if channel.entries:
            self._retry(channel)

    def _answered(self) -> None:
        self._in_flight -= 1
        self._is_answered.set()

    async def flush(self) -> None:
        """Wait until every change has been answered; the caller bounds the time."""
        while self._in_flight or self._changed:
            self._is_answered.clear()
            await self._is_answered.wait()

    # --- renewing ----------------------------------------------------------------------------

    async def renew(self) -> None:
        """Renew entries, and sweep those of workers that have died, until cancelled."""
        tick = min(0.25, self._interval / 20)
        while True:
            await asyncio.sleep(tick)
            now = self._loop.time()
            while self._due and self._due[0][0] <= now:
                at, _, channel = heapq.heappop(self._due)
                if self._channels.get(channel.name) is not channel or not channel.entries:
                    continue
                if at == channel.renew_at:
                    await self._renew(channel)
                elif at == channel.sweep_at:
                    channel.sweep_at = 0.0
                    await self._send_renewal(channel, (), is_last=True)

    @property
    def may_sweep(self) -> bool:
        """Whether an entry that has expired is that of a worker that has died."""
        return self._loop.time() - self._failed_at > self._interval

    def _renew_at(self, channel: _Channel, at: float) -> None:
        channel.renew_at = at
        heapq.heappush(self._due, (at, next(self._numbers), channel))

    def _retry(self, channel: _Channel) -> None:
        """Renew a channel soon, spread over the workers and channels that have failed together."""
        at = self._loop.time() + min(self._interval, random.uniform(0.3, 1.0) * _RETRY_SECONDS)
        if at < channel.renew_at:
            self._renew_at(channel, at)

    async def _renew(self, channel: _Channel) -> None:
        self._renew_at(channel, self._loop.time() + self._interval)
        clients = [
            subscriber.connection.client
            for subscriber, membership in channel.members.items()
            if membership.mode.has_entries
        ]
        for first in range(0, len(clients), _RENEWED_AT_A_TIME):
            batch = clients[first : first + _RENEWED_AT_A_TIME]
            is_last = first + len(batch) == len(clients)
            await self._send_renewal(channel, batch, is_last=is_last)

    async def _send_renewal(
        self, channel: _Channel, clients: list[str] | tuple[()], *, is_last: bool
    ) -> None:
        while self._renewing >= _RENEWALS_IN_FLIGHT:
            self._is_answered.clear()
            await self._is_answered.wait()
        sweeps = is_last and self.may_sweep
        # If the worker was stopped for longer than its lease, others have sent leaves of its members.
        is_late = self.may_sweep and self._loop.time() - channel.renewed_at > self._ttl
        self._in_flight += 1
        self._renewing += 1
        self._store.renew(
            channel.name,
            clients,
            partial(self._renewed, channel, len(clients), is_last, JOIN if is_late else ADD),
            sweeps=sweeps,
        )

    def _renewed(
        self, channel: _Channel, count: int, is_last: bool, kind: bytes, reply: Renewed | StoreError
    ) -> None:
        self._renewing -= 1
        self._answered()
        if isinstance(reply, StoreError):
            self._counters.presence_renewals["failed"] += count
            self._failed("presence_renew_failed", reply)
            if channel.entries:
                self._retry(channel)
            return
        self._worked()
        self._counters.presence_renewals["renewed"] += count - len(reply.missing)
        if count and is_last:
            channel.renewed_at = self._loop.time()
        if reply.missing:
            self._restore(channel, set(reply.missing), kind)
        if is_last and reply.expires_in_seconds is not None and channel.entries:
            self._sweep_at(channel, self._loop.time() + reply.expires_in_seconds)

    def _restore(self, channel: _Channel, missing: set[str], kind: bytes) -> None:
        """Add entries that the store has lost, or that others have swept."""
        for subscriber, membership in channel.members.items():
            if membership.mode.has_entries and subscriber.connection.client in missing:
                self._counters.presence_renewals["restored"] += 1
                self._change(channel, kind, subscriber, membership)

    def _sweep_at(self, channel: _Channel, at: float) -> None:
        """Sweep a channel when its first entry expires, unless it is renewed before."""
        at = max(at, self._failed_at + self._interval)
        if at < channel.renew_at:
            channel.sweep_at = at + random.random() * _SWEEP_DELAY_SECONDS
            heapq.heappush(self._due, (channel.sweep_at, next(self._numbers), channel))

    # --- failures ----------------------------------------------------------------------------

    def _failed(self, event: str, error: StoreError) -> None:
        self._failed_at = self._loop.time()
        self._counters.errors["presence"] += 1
        if not self._has_warned:
            self._has_warned = True
            log.error(event, reason=str(error))

    def _worked(self) -> None:
        if self._has_warned and self._loop.time() - self._failed_at > 1.0:
            self._has_warned = False
            log.info("presence_restored")


def _encoded(kind: bytes, subscriber: MemberClient, chan_info: bytes) -> Change:
    one = subscriber.connection
    return Change(
        kind, one.client, one.user, client_info(one.user, one.client, one.info, chan_info)
    )


def members_of(
    store: PresenceStore | None, options: ClientConfig, counters: Counters
) -> Members | None:
    """The members of a worker with a presence store; None without one."""
    if store is None:
        return None
    return Members(
        store,
        JoinLeavePushes(counters),
        counters,
        interval_seconds=options.presence_update_interval,
        ttl_seconds=options.presence_ttl,
    )
