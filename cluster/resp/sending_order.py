"""Which commands of a key another one has overtaken, because it was sent to another node.

Commands of one link are done and answered in the order in which they were sent. When the slot of a key
moves, a later command may be done at its new node before the old one has answered an earlier one, which it
then redirects: to follow that would change the order.

Guarantees
- From a disturbance (a redirection, another map) until every command that was sent before it is answered,
  the node of each key that is used is remembered. Then it is forgotten, and keeping the count of what is
  not answered is all that a command costs.
- What is remembered are the keys of the time in which two lots of commands are answered.
"""

from __future__ import annotations

from cluster.resp.link import Link


class Lot:
    """Commands that were sent between two disturbances.

    Attributes:
        unanswered: how many of them no node has answered; their sender counts them.
        is_awaited: whether `SendingOrder.settled` must be called when that is 0.
    """

    __slots__ = ("is_awaited", "unanswered")

    def __init__(self) -> None:
        self.unanswered = 0
        self.is_awaited = False


#: The highest number that was sent over a link, by key.
_Sent = dict[str, dict[Link, int]]


class SendingOrder:
    """Remembers the nodes of keys while it matters.

    Attributes:
        lot: to which a command that is sent now belongs.
        is_watched: whether `sent` must be told of each command.
    """

    def __init__(self) -> None:
        self.lot = Lot()
        self.is_watched = False
        self._is_disturbed = False
        self._sent: _Sent = {}
        self._sent_earlier: _Sent = {}

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._sent.keys() | self._sent_earlier.keys())

    def disturbed(self) -> None:
        """A node has redirected a command, or the map has changed."""
        if self.is_watched:
            self._is_disturbed = True
        elif self.lot.unanswered:
            self.is_watched = True
            self._next_lot()

    def sent(self, key: str, number: int, link: Link) -> None:
        """A command is about to be sent: for the first time, or because it is followed."""
        links = self._sent.setdefault(key, {})
        links[link] = max(number, links.get(link, 0))

    def is_overtaken(self, key: str, number: int, link: Link | None) -> bool:
        """Whether a later command of the key went to another node than this one."""
        return any(
            later > number and other is not link
            for sent in (self._sent, self._sent_earlier)
            for other, later in sent.get(key, {}).items()
        )

    def settled(self) -> None:
        """All commands of the lot that was awaited are answered."""
        if self._is_disturbed and self.lot.unanswered:
            self._is_disturbed = False
            self._next_lot()
            return
        self.is_watched = self._is_disturbed = False
        self._sent, self._sent_earlier = {}, {}

    def _next_lot(self) -> None:
        self.lot.is_awaited = True
        self.lot = Lot()
        self._sent, self._sent_earlier = {}, self._sent
