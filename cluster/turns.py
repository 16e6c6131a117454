"""Shares the turns of an event loop among the connections that have more to do than one turn allows.

Each has its part of work per turn, and all of them together have a part of its time; what does not fit waits
for the next turn, first come, first served. Connections with little to do never wait here.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final, Protocol
from weakref import WeakKeyDictionary

#: What the waiting connections may take of one turn together; one of them always gets its part.
SECONDS_PER_TURN: Final = 0.00025


class WaitingConnection(Protocol):
    """A connection that goes on in a later turn."""

    def begin_turn(self) -> None:
        """Do the next part of the work."""


class Turns:
    """The connections of one event loop that wait for their turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[WaitingConnection] = deque()
        self._is_scheduled = False

    @property
    def are_taken(self) -> bool:
        """Whether connections are waiting."""
        return bool(self._waiting)

    def add(self, connection: WaitingConnection) -> None:
        """Let a connection wait; it must not wait already."""
        self._waiting.append(connection)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        waiting = self._waiting
        end = time.perf_counter() + SECONDS_PER_TURN
        try:
            # Those that come back have their turn after all others, and not in this turn of the loop.
            for _ in range(len(waiting)):
                waiting.popleft().begin_turn()
                if time.perf_counter() > end:
                    break
        finally:
            # What one of them raises is the loop's to report; the others go on.
            self._is_scheduled = bool(waiting)
            if waiting:
                self._loop.call_soon(self._run)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def turns_of(loop: asyncio.AbstractEventLoop) -> Turns:
    """The turns of an event loop."""
    found = _turns.get(loop)
    if found is None:
        found = _turns[loop] = Turns(loop)
    return found
