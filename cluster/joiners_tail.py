"""What a channel has delivered while clients join it, for those whose read of the stream is behind.

A joiner may miss what is delivered after it has begun, so only what the oldest joiner may miss is kept.
Joins that take long, or overlap without an end, would make that everything: it is bounded too, and a
joiner whose part was dropped is told that it has lost publications.

Rules of this file: those of the hub.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from cluster.subscriber_groups import Framed

#: Most publications of a tail, and most bytes of their frames, unless one alone is larger. More would
#: close a joiner as slow: it is what `client.queue_max_size` lets it have, unless that is raised.
TAIL_LIMIT: Final = 10_000
TAIL_BYTES: Final = 1 << 20


class Tail:
    """The last publications of one channel, from where its oldest joiner has begun."""

    __slots__ = ("_bytes", "_first", "_framed", "_starts")

    def __init__(self) -> None:
        self._framed: deque[Framed] = deque()
        #: The number of the first publication here: they are counted, as offsets may jump back.
        self._first = 0
        self._bytes = 0
        #: How many joiners have begun at a number, in ascending order.
        self._starts: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._framed)

    @property
    def next(self) -> int:
        """The number of the next publication: the start of a joiner that begins now."""
        return self._first + len(self._framed)

    @property
    def bytes(self) -> int:
        """Of all frames."""
        return self._bytes

    def begin(self) -> None:
        """Keep what follows for one more joiner."""
        start = self.next
        self._starts[start] = self._starts.get(start, 0) + 1

    def end(self, start: int) -> None:
        """Drop what was kept only for a joiner with this start."""
        self._starts[start] -= 1
        if self._starts[start]:
            return
        del self._starts[start]
        oldest = next(iter(self._starts), self.next)
        while self._first < oldest and self._framed:
            self._drop_first()

    def add(self, framed: list[Framed]) -> None:
        """Add what has been delivered."""
        self._framed.extend(framed)
        self._bytes += sum([len(frame) for _, frame in framed])
        while len(self._framed) > 1 and (
            len(self._framed) > TAIL_LIMIT or self._bytes > TAIL_BYTES
        ):
            self._drop_first()

    def forget(self) -> None:
        """Drop everything: the channel's position has jumped, and what follows does not follow this."""
        self._first = self.next
        self._framed.clear()
        self._bytes = 0

    def after(self, offset: int) -> list[Framed]:
        """Those after an offset, ascending, as far as they are here."""
        found: list[Framed] = []
        for one in reversed(self._framed):
            if one[0].offset > offset:
                found.append(one)
            elif one[0].offset:
                break
        found.reverse()
        return found

    def _drop_first(self) -> None:
        _, frame = self._framed.popleft()
        self._first += 1
        self._bytes -= len(frame)
