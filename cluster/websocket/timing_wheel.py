"""A timing wheel for pings: slots that are visited one after the other, each with its members.

A member stays in its slot, so it is visited once per turn, and visits are spread evenly however many
members were added at once. The first visit comes after half a turn to a whole turn.
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
        check_seconds: how long after its visit a slot is due for its check; less than a turn.
    """

    def __init__(self, *, turn_seconds: float, check_seconds: float) -> None:
        self.tick_seconds = turn_seconds / SLOTS
        self._check_ticks = min(SLOTS - 1, math.ceil(check_seconds / self.tick_seconds))
        self._slots: list[set[T]] = [set() for _ in range(SLOTS)]
        self._now = 0

    def add(self, member: T) -> int:
        """Put a member into a slot between half a turn and a turn ahead; returns the slot."""
        half = SLOTS // 2
        slot = (self._now + half + int(random.random() * (SLOTS - half))) % SLOTS
        self._slots[slot].add(member)
        return slot

    def remove(self, member: T, slot: int) -> None:
        """Remove a member from its slot."""
        self._slots[slot].discard(member)

    def tick(self) -> tuple[list[T], list[T]]:
        """Advance by one slot; returns the members to visit and those to check."""
        self._now = (self._now + 1) % SLOTS
        check = (self._now - self._check_ticks) % SLOTS
        return list(self._slots[self._now]), list(self._slots[check])
