"""One clock for the pings of all connections: a wheel of slots, each with its clients.

A client stays in its slot for life, so its pings come once per turn, and pings are spread evenly
however many clients came at once. The first comes after half a turn to a whole turn.
"""

from __future__ import annotations

import math
import random
from typing import Final, Generic, TypeVar

T = TypeVar("T")

SLOTS: Final = 50


class TimingWheel(Generic[T]):
    """Members spread over the slots of one turn.

    Args:
        turn_seconds: time between two visits of a slot.
        echo_seconds: how long after its visit a slot is due for its echo (the pong), below a turn.
    """

    def __init__(self, *, turn_seconds: float, echo_seconds: float) -> None:
        self.tick_seconds = turn_seconds / SLOTS
        self._echo_ticks = min(SLOTS - 1, math.ceil(echo_seconds / self.tick_seconds))
        self._slots: list[set[T]] = [set() for _ in range(SLOTS)]
        self._now = 0

    def add(self, member: T) -> int:
        """Put a member into a slot between half a turn and a turn ahead; returns the slot."""
        slot = (self._now + random.randint(SLOTS // 2, SLOTS - 1)) % SLOTS
        self._slots[slot].add(member)
        return slot

    def remove(self, member: T, slot: int) -> None:
        """Take a member out of its slot."""
        self._slots[slot].discard(member)

    def tick(self) -> tuple[list[T], list[T]]:
        """Go on by one slot; returns who is due now and whose echo is due."""
        self._now = (self._now + 1) % SLOTS
        echo = (self._now - self._echo_ticks) % SLOTS
        return list(self._slots[self._now]), list(self._slots[echo])
