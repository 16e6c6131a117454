"""Clients whose sockets have ended leave their channels and sessions a few at a time.

When a proxy or a host dies, the sockets of thousands of clients end in one turn of the event loop. To take one
client out of everything is short, and thousands of them are what the others would wait for.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from cluster.turn_budget import ITEMS_PER_TURN, SECONDS_PER_TURN


class LostClient(Protocol):
    """A client whose socket has ended."""

    def leave(self) -> None:
        """Leave everything, for good."""


class LostClients:
    """The clients that have not left yet: the first of a turn leave at once, the others in the next turns, in order."""

    def __init__(self) -> None:
        self._waiting: dict[LostClient, None] = {}
        self._left_of_turn = 0
        self._ends_at = 0.0
        self._is_scheduled = False

    def add(self, client: LostClient) -> None:
        """Let a client leave, now or soon."""
        if not self._is_scheduled:
            self._schedule()
        self._waiting[client] = None
        self._leave_in_turn()

    def leave_now(self, client: LostClient) -> None:
        """Let a client that waits leave at once."""
        if client in self._waiting:
            del self._waiting[client]
            client.leave()

    def _schedule(self) -> None:
        self._is_scheduled = True
        self._left_of_turn = ITEMS_PER_TURN
        self._ends_at = time.monotonic() + SECONDS_PER_TURN
        asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._is_scheduled = False
        if self._waiting:
            self._schedule()
            self._leave_in_turn()

    def _leave_in_turn(self) -> None:
        """Let those who wait leave, as far as this turn goes."""
        waiting = self._waiting
        while waiting and self._left_of_turn > 0 and time.monotonic() < self._ends_at:
            self._left_of_turn -= 1
            client = next(iter(waiting))
            del waiting[client]
            # What it raises is the loop's to report; the others leave in the next turn.
            client.leave()
