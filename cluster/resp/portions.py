"""The shard channels that one link subscribes to: again in portions, and each as the server has answered.

Rules
- What a new connection, a moved slot or a refusal makes subscribe again waits here, each channel once; the
  next are sent when earlier ones are answered. So neither the unsent bytes, nor what the server has to
  answer, nor what one turn of the loop does grows with the number of channels.
- A channel that nobody has subscribed to before, and those that go first, do not wait.
- The server answers each SSUBSCRIBE once, with a confirmation or an error. An error may also answer a
  SUNSUBSCRIBE; then a channel more is on its way until the next connection.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from cluster.resp.link import Link

#: Of the channels that are subscribed again, so many are on their way.
UNANSWERED: Final = 512
_NEVER: Final = -1


class WantedChannel:
    """A shard channel that this process wants.

    Attributes:
        portions: those of the server that owns it.
        map_version: of the slot map by which that is so.
        sent_at: loop time.
        is_left: whether it has been unsubscribed.
        goes_first: whether it never waits behind others.
    """

    __slots__ = (
        "confirmed_by", "goes_first", "inbox", "is_left", "key", "map_version", "name",
        "on_resumed", "portions", "receiver", "sent_at", "sent_by", "waiters", "was_confirmed",
    )  # fmt: skip

    def __init__(
        self,
        key: str,
        name: str,
        portions: Portions,
        receiver: Callable[[str, list[bytes]], None],
        on_resumed: Callable[[str], None],
    ) -> None:
        self.key = key
        self.name = name
        self.portions = portions
        self.receiver = receiver
        self.on_resumed = on_resumed
        self.inbox: list[bytes] = []
        self.waiters: set[asyncio.Future[None]] | None = None
        self.map_version = 0
        self.sent_at = 0.0
        # Numbers of connections of the link.
        self.sent_by = self.confirmed_by = _NEVER
        self.was_confirmed = False
        self.goes_first = False
        self.is_left = False

    @property
    def is_confirmed(self) -> bool:
        return self.confirmed_by == self.portions.connection

    @property
    def is_sent(self) -> bool:
        return self.sent_by == self.portions.connection

    def unconfirm(self) -> None:
        """Forget that it was sent and confirmed."""
        self.sent_by = self.confirmed_by = _NEVER

    def move_to(self, portions: Portions) -> None:
        """Have another server as its owner."""
        self.portions.remove(self)
        self.portions = portions
        self.unconfirm()


class Portions:
    """What is on its way to one server, and what waits.

    Attributes:
        connection: a number; with each connection of the link everything is unconfirmed again.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._waiting: OrderedDict[WantedChannel, None] = OrderedDict()
        self._unanswered = 0
        self.connection = 0

    def connected(self) -> None:
        """Note that the link has a new connection, by which nothing has been sent."""
        self.connection += 1
        self._unanswered = 0

    def send(self, channel: WantedChannel) -> None:
        """Subscribe to a channel now; not at all while the link is down."""
        self.remove(channel)
        channel.sent_at = self._loop.time()
        if self._link.is_up:
            channel.sent_by = self.connection
            self._unanswered += 1
            self._link.send(("SSUBSCRIBE", channel.key))

    def add(self, channel: WantedChannel) -> None:
        """Subscribe to a channel as soon as there is room; not at all while the link is down."""
        if channel.goes_first:
            self.send(channel)
        elif self._link.is_up:
            self._waiting[channel] = None
            self.send_next()

    def remove(self, channel: WantedChannel) -> None:
        """Let a channel wait no longer."""
        self._waiting.pop(channel, None)

    def unsubscribe(self, channel: WantedChannel) -> None:
        """Unsubscribe from a channel, whether it has been sent or waits."""
        self.remove(channel)
        self._link.send(("SUNSUBSCRIBE", channel.key))

    def answered(self) -> None:
        """Note that the server has answered one of them."""
        self._unanswered = max(0, self._unanswered - 1)

    def send_next(self) -> None:
        """Send what there is room for."""
        while self._waiting and self._unanswered < UNANSWERED and self._link.is_up:
            self.send(next(iter(self._waiting)))
