"""Lets the event loop do everything else while one task works through a long list.

What one turn of the loop does is what heartbeats, timers and all clients wait for. How long an item takes is
not known beforehand: on a busy machine it may be a hundred times as long as on an idle one.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

ITEMS_PER_TURN: Final = 16
SECONDS_PER_TURN: Final = 0.01


class TurnBudget:
    """What a task may do in one turn of the loop: 16 items, or fewer if they take 10 ms."""

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._items_left = ITEMS_PER_TURN
        self._ends_at = time.monotonic() + SECONDS_PER_TURN

    async def spend(self) -> None:
        """Call after each item: goes on in the next turn if this one's part is done."""
        self._items_left -= 1
        if self._items_left <= 0 or time.monotonic() >= self._ends_at:
            await asyncio.sleep(0)
            self._renew()
