"""Where a worker is in the stream of commands, and which of them it has run.

A failover may lose the last commands while the epoch stays: their offsets are given to others. So a command
is known by its offset and its text, which no other has, and a read begins with the one at the worker's
position. If the stream ends before that, or has another one there, it is read from the oldest that is
remembered, and what was run is not run again. Subscriptions and reads find the new master at different times:
a command that was heard of, and that no read brings, is waited for before it counts as lost.

What cannot be known: whether commands were replaced whose successors are no longer kept either, which takes a
minute without the store, and whether a command of a version that does not number its own is a repetition.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from cluster.broker import StreamRead
from cluster.protocol import Position, Publication

#: Commands that are remembered by their hashes: twice what the stream keeps.
REMEMBERED: Final = 2000
#: Reads that do not bring a command before it is lost; those of a master that was replaced end earlier.
READS: Final = 10
_HASHES: Final = 4


class Missed(NamedTuple):
    """What a read has brought.

    Attributes:
        bodies: commands to run, in their order.
        lost: commands that will not come any more.
        is_behind: whether another read is needed now.
        waits: whether one is needed later, because a command has not come yet.
    """

    bodies: list[bytes]
    lost: int = 0
    is_behind: bool = False
    waits: bool = False


class _Awaited(NamedTuple):
    """A command that a read must bring, and how many have not."""

    body_hash: int
    reads: int = 0


class CommandStream:
    """The commands of one worker. Offsets are those of the stream."""

    def __init__(self) -> None:
        self.position = Position(0, "")
        self.has_begun = False
        #: By offset, the hashes of the commands that were run there, the newest last.
        self._run: dict[int, tuple[int, ...]] = {}
        self._awaited: dict[int, _Awaited] = {}

    def begin(self, read: StreamRead) -> None:
        """Take the top of the stream as the position; the commands of the read, the newest first, are others' work."""
        self.position, self.has_begun = read.top, True
        for one in reversed(read.publications):
            self._remember(one)

    def is_known(self, one: Publication) -> bool:
        """Whether this command was run."""
        return hash(one.body) in self._run.get(one.offset, ())

    def follows(self, one: Publication) -> bool:
        """Whether a command is the next one, which counts as run then."""
        position = self.position
        if one.epoch != position.epoch or one.offset != position.offset + 1:
            return False
        self._ran(one)
        return True

    def expect(self, one: Publication) -> None:
        """Reads that begin after this must bring a command, or it is lost."""
        awaited = self._awaited
        body_hash = hash(one.body)
        if self.is_known(one) or (
            one.offset in awaited and awaited[one.offset].body_hash == body_hash
        ):
            return
        awaited[one.offset] = _Awaited(body_hash)
        if len(awaited) > REMEMBERED:
            del awaited[next(iter(awaited))]

    @property
    def awaited(self) -> dict[int, _Awaited]:
        """What a read that begins now must bring."""
        return self._awaited.copy()

    @property
    def since(self) -> int:
        """The offset after which to read: the command at the position is compared, if it is remembered."""
        offset = self.position.offset
        return offset - 1 if offset in self._run else offset

    def take(self, read: StreamRead, awaited: dict[int, _Awaited]) -> Missed:
        """Follow what was read after `since`; `awaited` is what was so when the read began."""
        top = read.top
        if top.epoch != self.position.epoch:
            # The store was emptied or replaced: all that its new stream has is new.
            self.position = Position(0, top.epoch)
            return Missed([], is_behind=True)
        if top.offset < self.position.offset:
            return self._go_back(top.offset)
        bodies, lost = [], 0
        for one in read.publications:
            is_known = self.is_known(one)
            if not is_known and one.offset <= self.position.offset:
                return self._go_back(one.offset - 1)
            lost += self._lost_before(one.offset)
            if not is_known:
                bodies.append(one.body)
            self._ran(one)
        if read.is_cut:
            return Missed(bodies, lost, is_behind=True)
        lost += self._lost_before(top.offset + 1)
        self.position = top
        given_up, waits = self._without(awaited)
        return Missed(bodies, lost + given_up, waits=waits)

    def _go_back(self, most: int) -> Missed:
        """Begin again before all commands without a gap that are remembered, and not after `most`."""
        offset = self.position.offset
        while offset in self._run:
            offset -= 1
        self.position = Position(min(offset, most), self.position.epoch)
        return Missed([], is_behind=True)

    def _lost_before(self, end: int) -> int:
        """How many commands after the position and before another offset are not kept, and were not run."""
        first = self.position.offset + 1
        if end <= first:
            return 0
        for offset in [one for one in self._awaited if first <= one < end and one not in self._run]:
            del self._awaited[offset]
        return end - first - sum(first <= one < end for one in self._run)

    def _without(self, awaited: dict[int, _Awaited]) -> tuple[int, bool]:
        """How many commands are lost that a read has not brought, and whether others are waited for."""
        lost, waits = 0, False
        for offset, one in awaited.items():
            if self._awaited.get(offset) != one:
                continue
            if one.reads < READS:
                self._awaited[offset] = one._replace(reads=one.reads + 1)
                waits = True
            else:
                del self._awaited[offset]
                lost += 1
        return lost, waits

    def _ran(self, one: Publication) -> None:
        self.position = Position(one.offset, one.epoch)
        self._remember(one)

    def _remember(self, one: Publication) -> None:
        body_hash = hash(one.body)
        awaited = self._awaited.get(one.offset)
        if awaited is not None and awaited.body_hash == body_hash:
            del self._awaited[one.offset]
        before = self._run.pop(one.offset, ())
        others = tuple(other for other in before if other != body_hash)
        self._run[one.offset] = (*others, body_hash)[-_HASHES:]
        if len(self._run) > REMEMBERED:
            del self._run[next(iter(self._run))]
