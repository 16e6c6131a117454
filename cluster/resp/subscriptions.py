"""The shard channels that one worker subscribes to, kept subscribed when connections break.

Guarantees: a channel is confirmed only when the server has said so; after a broken connection or
a moved slot every channel is subscribed again and `on_resumed` is called, so that positions can be
compared; everything one read brought is passed on as one batch per channel.
One channel per SSUBSCRIBE: a Redis Cluster refuses several slots in one command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from cluster.errors import StoreRefused, StoreUnavailable
from cluster.log import get_logger
from cluster.resp.shard import Shard

log = get_logger()

#: Gets a channel's name and the payloads one read brought, in order.
Receiver = Callable[[str, list[bytes]], None]
Resumed = Callable[[str], None]

_RETRY_SECONDS = 2.0


class _Entry:
    __slots__ = (
        "inbox", "is_confirmed", "key", "name", "on_resumed",
        "receiver", "sent_at", "shard", "unconfirmed", "waiters", "was_confirmed",
    )  # fmt: skip

    def __init__(
        self, key: str, name: str, shard: Shard, receiver: Receiver, on_resumed: Resumed
    ) -> None:
        self.key = key
        self.name = name
        self.shard = shard
        self.receiver = receiver
        self.on_resumed = on_resumed
        self.inbox: list[bytes] = []
        self.waiters: set[asyncio.Future[None]] | None = None
        self.unconfirmed = 0
        self.sent_at = 0.0
        self.is_confirmed = False
        self.was_confirmed = False


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
        self._entries: dict[bytes, _Entry] = {}
        self._touched: list[_Entry] = []
        self._loop = asyncio.get_running_loop()

    def subscribe(
        self,
        key: str,
        name: str,
        receiver: Receiver,
        on_resumed: Resumed = lambda name: None,
    ) -> asyncio.Future[None]:
        """Subscribe to a shard channel; the future is done when the server has confirmed it.

        Messages may reach `receiver` before the future's callbacks have run.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        entry = self._entries.get(key.encode())
        if entry is None:
            entry = _Entry(key, name, self._router.shard_of(key), receiver, on_resumed)
            self._entries[key.encode()] = entry
            self._send(entry)
        if entry.is_confirmed:
            future.set_result(None)
        else:
            waiters = entry.waiters = entry.waiters or set()
            waiters.add(future)
            future.add_done_callback(waiters.discard)
        return future

    def is_confirmed(self, key: str) -> bool:
        """Whether a shard channel is subscribed and the server has confirmed it."""
        entry = self._entries.get(key.encode())
        return entry is not None and entry.is_confirmed

    def unsubscribe(self, key: str) -> None:
        """Unsubscribe from a shard channel; what still arrives is dropped."""
        entry = self._entries.pop(key.encode(), None)
        if entry is None:
            return
        entry.shard.subscriptions.send(("SUNSUBSCRIBE", key))
        for waiter in list(entry.waiters or ()):
            if not waiter.done():
                waiter.set_exception(StoreUnavailable("the subscription was cancelled"))

    def retry_unconfirmed(self) -> None:
        """Send again what the server has not confirmed for a while; call about once a second."""
        now = self._loop.time()
        for entry in self._entries.values():
            if not entry.is_confirmed and now - entry.sent_at > _RETRY_SECONDS:
                entry.shard = self._router.shard_of(entry.key)
                # A refused subscribe is never confirmed.
                entry.unconfirmed = 0
                self._send(entry)

    @property
    def unconfirmed(self) -> int:
        """The number of channels that the server has not confirmed."""
        return sum(1 for entry in self._entries.values() if not entry.is_confirmed)

    # --- called by the router ------------------------------------------------------------

    def messages_received(self, shard: Shard, messages: list[Any]) -> None:
        """Pass on the payloads, one batch for each channel, and note what is confirmed."""
        entries = self._entries
        touched = self._touched
        for message in messages:
            if isinstance(message, StoreRefused):
                if str(message).startswith("MOVED "):
                    self._router.refresh()
                else:
                    self.refusal = str(message)
                    log.warning("subscribe_refused", server=str(shard.address), reason=str(message))
                continue
            kind = message[0]
            entry = entries.get(message[1])
            if entry is None:
                continue
            if kind == b"smessage":
                if not entry.inbox:
                    touched.append(entry)
                entry.inbox.append(message[2])
            elif kind == b"ssubscribe":
                self._confirmed(entry, shard)
            elif kind == b"sunsubscribe" and entry.unconfirmed == 0 and entry.shard is shard:
                # Not requested by us: the slot has moved away from this server.
                entry.is_confirmed = False
                self._router.refresh()
        for entry in touched:
            payloads, entry.inbox = entry.inbox, []
            entry.receiver(entry.name, payloads)
        touched.clear()

    def link_up(self, shard: Shard) -> None:
        """Subscribe again to everything of a shard whose connection is new."""
        for entry in self._entries.values():
            if entry.shard is shard:
                entry.is_confirmed = False
                entry.unconfirmed = 0
                self._send(entry)

    def slots_moved(self) -> None:
        """Subscribe at its new owner to every channel whose slot has moved."""
        for entry in self._entries.values():
            shard = self._router.shard_of(entry.key)
            if entry.shard is not shard or not entry.is_confirmed:
                entry.shard = shard
                entry.is_confirmed = False
                entry.unconfirmed = 0
                self._send(entry)

    # --- one channel ---------------------------------------------------------------------

    def _send(self, entry: _Entry) -> None:
        entry.sent_at = self._loop.time()
        if entry.shard.subscriptions.is_up:
            entry.unconfirmed += 1
            entry.shard.subscriptions.send(("SSUBSCRIBE", entry.key))

    def _confirmed(self, entry: _Entry, shard: Shard) -> None:
        if entry.shard is not shard:
            return
        entry.unconfirmed = max(0, entry.unconfirmed - 1)
        if entry.unconfirmed or entry.is_confirmed:
            return
        entry.is_confirmed = True
        waiters, entry.waiters = entry.waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        if entry.was_confirmed:
            entry.on_resumed(entry.name)
        entry.was_confirmed = True
