"""The shard channels that one worker subscribes to, kept subscribed when connections break.

Guarantees: a channel is confirmed only when the server has said so; after a broken connection or
a moved slot every channel is subscribed again and `on_resumed` is called, so that positions can be
compared; everything one read brought is passed on as one batch per channel; no turn of the loop does more
than a part of that for very many channels (`cluster.resp.portions`).
One channel per SSUBSCRIBE: a Redis Cluster refuses several slots in one command.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, Protocol

from cluster.errors import StoreRefused, StoreUnavailable
from cluster.log import get_logger
from cluster.resp.portions import WantedChannel
from cluster.resp.shard import Shard

log = get_logger()

#: Gets a channel's name and the payloads one read brought, in order.
Receiver = Callable[[str, list[bytes]], None]
Resumed = Callable[[str], None]

_RETRY_SECONDS = 2.0
_CHANNELS_PER_TURN: Final = 512


class SlotMap(Protocol):
    """What subscriptions need of the router."""

    def shard_of(self, key: str) -> Shard:
        """Return the shard that owns a key."""

    def refresh(self) -> None:
        """Read the map again soon, because a server contradicted it."""


class Subscriptions:
    """The shard channels that this process subscribes to, over all shards of a router.

    A `Router` makes its own (`Router.subscriptions`) and calls `messages_received`, `link_up` and
    `slots_moved`.
    """

    def __init__(self, router: SlotMap) -> None:
        self._router = router
        #: What a server said when it refused a subscribe last, "" if none has.
        self.refusal = ""
        self._channels: dict[bytes, WantedChannel] = {}
        self._first: set[WantedChannel] = set()
        self._touched: deque[WantedChannel] = deque()
        self._resumed: deque[WantedChannel] = deque()
        self._map_version = 0
        # Those that are still to be looked at, None if all have been.
        self._left: Iterator[WantedChannel] | None = None
        self._has_to_look_again = False
        self._loop = asyncio.get_running_loop()

    def subscribe(
        self,
        key: str,
        name: str,
        receiver: Receiver,
        on_resumed: Resumed = lambda name: None,
        *,
        goes_first: bool = False,
    ) -> asyncio.Future[None]:
        """Subscribe to a shard channel; the future is done when the server has confirmed it.

        Messages may reach `receiver` before the future's callbacks have run.

        Args:
            goes_first: on each new connection it is subscribed to before all others.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        channel = self._channels.get(key.encode())
        if channel is None:
            portions = self._router.shard_of(key).portions
            channel = WantedChannel(key, name, portions, receiver, on_resumed)
            channel.map_version = self._map_version
            channel.goes_first = goes_first
            self._channels[key.encode()] = channel
            if goes_first:
                self._first.add(channel)
            portions.send(channel)
        if channel.is_confirmed:
            future.set_result(None)
        else:
            waiters = channel.waiters = channel.waiters or set()
            waiters.add(future)
            future.add_done_callback(waiters.discard)
        return future

    def is_confirmed(self, key: str) -> bool:
        """Whether a shard channel is subscribed and the server has confirmed it."""
        channel = self._channels.get(key.encode())
        return channel is not None and channel.is_confirmed

    def unsubscribe(self, key: str) -> None:
        """Unsubscribe from a shard channel; what still arrives is dropped."""
        channel = self._channels.pop(key.encode(), None)
        if channel is None:
            return
        channel.is_left = True
        self._first.discard(channel)
        channel.portions.unsubscribe(channel)
        for waiter in list(channel.waiters or ()):
            if not waiter.done():
                waiter.set_exception(StoreUnavailable("the subscription was cancelled"))

    def retry_unconfirmed(self) -> None:
        """Send again what the server has not confirmed for a while; call about once a second."""
        if self._left is None:
            self._look_at_all()

    @property
    def unconfirmed(self) -> int:
        """The number of channels that the server has not confirmed."""
        return sum(1 for channel in self._channels.values() if not channel.is_confirmed)

    # --- called by the router ------------------------------------------------------------

    def messages_received(self, shard: Shard, messages: list[Any]) -> None:
        """Pass on the payloads, one batch for each channel, and note what is confirmed."""
        channels = self._channels
        touched = self._touched
        has_answer = False
        for message in messages:
            if isinstance(message, StoreRefused):
                self._refused(message, shard)
                has_answer = True
                continue
            kind = message[0]
            channel = channels.get(message[1])
            if kind == b"smessage":
                if channel is None:
                    continue
                if not channel.inbox:
                    touched.append(channel)
                channel.inbox.append(message[2])
            elif kind == b"ssubscribe":
                shard.portions.answered()
                self._confirmed(channel, shard)
                has_answer = True
            elif kind == b"sunsubscribe":
                self._unsubscribed(channel, shard)
        if has_answer:
            shard.portions.send_next()
        self._pass_on()

    def link_up(self, shard: Shard) -> None:
        """Subscribe again to everything of a shard whose connection is new."""
        shard.portions.connected()
        now = self._loop.time()
        for channel in self._first:
            self._look_at(channel, now)
        shard.portions.send_next()
        self._look_at_all()

    def slots_moved(self) -> None:
        """Subscribe at its new owner to every channel whose slot has moved."""
        self._map_version += 1
        self._look_at_all()

    # --- all channels --------------------------------------------------------------------

    def _look_at_all(self) -> None:
        """Subscribe to whatever needs it, a part of the channels in each turn of the loop."""
        if self._left is None:
            self._left = iter(list(self._channels.values()))
            self._look_further()
        else:
            # What has happened may be about those that have been looked at.
            self._has_to_look_again = True

    def _look_further(self) -> None:
        part = list(islice(self._left or (), _CHANNELS_PER_TURN))
        now = self._loop.time()
        for channel in part:
            self._look_at(channel, now)
        if len(part) == _CHANNELS_PER_TURN:
            self._loop.call_soon(self._look_further)
            return
        self._left = None
        if self._has_to_look_again:
            self._has_to_look_again = False
            self._loop.call_soon(self._look_at_all)

    def _look_at(self, channel: WantedChannel, now: float) -> None:
        if channel.is_left:
            return
        has_new_map = channel.map_version != self._map_version
        if has_new_map:
            channel.map_version = self._map_version
            owner = self._router.shard_of(channel.key).portions
            if owner is not channel.portions:
                channel.move_to(owner)
        is_late = has_new_map or now - channel.sent_at > _RETRY_SECONDS
        if not channel.is_confirmed and (is_late or not channel.is_sent):
            channel.portions.add(channel)

    # --- one channel ---------------------------------------------------------------------

    def _refused(self, refusal: StoreRefused, shard: Shard) -> None:
        shard.portions.answered()
        if str(refusal).startswith("MOVED "):
            self._router.refresh()
        else:
            self.refusal = str(refusal)
            log.warning("subscribe_refused", server=str(shard.address), reason=str(refusal))

    def _confirmed(self, channel: WantedChannel | None, shard: Shard) -> None:
        if channel is None or channel.portions is not shard.portions:
            return
        # What has not been sent by this connection, is confirmed to one that has been left since.
        if channel.is_confirmed or not channel.is_sent:
            return
        channel.portions.remove(channel)
        channel.confirmed_by = channel.portions.connection
        waiters, channel.waiters = channel.waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        if channel.was_confirmed:
            self._resumed.append(channel)
        channel.was_confirmed = True

    def _unsubscribed(self, channel: WantedChannel | None, shard: Shard) -> None:
        if channel is not None and channel.portions is shard.portions and channel.is_confirmed:
            # Not requested by us: the slot has moved away from this server.
            channel.unconfirm()
            self._router.refresh()

    def _pass_on(self) -> None:
        # What an error keeps from its channel is passed on with the next messages.
        while self._resumed:
            channel = self._resumed.popleft()
            channel.on_resumed(channel.name)
        while self._touched:
            channel = self._touched.popleft()
            payloads, channel.inbox = channel.inbox, []
            channel.receiver(channel.name, payloads)
