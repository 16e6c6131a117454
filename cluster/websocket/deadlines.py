"""What must have happened within a fixed time after each thing began, in the order of the deadlines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import takewhile
from typing import Generic, TypeVar

T = TypeVar("T")


class Deadlines(Generic[T]):
    """Holds each item until its deadline, or until it is discarded.

    An item that has ended is discarded, because it would keep its memory until its deadline: in a storm
    of connections those that have ended are many more than the open ones.

    Args:
        delay_seconds: from `add` to the deadline.
    """

    def __init__(self, delay_seconds: float) -> None:
        self._delay = delay_seconds
        # One delay for all: in the order of insertion.
        self._due: dict[T, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def __iter__(self) -> Iterator[T]:
        return iter(self._due)

    def add(self, item: T) -> None:
        """Give an item its deadline; one that is here keeps its own."""
        self._due.setdefault(item, time.monotonic() + self._delay)

    def discard(self, item: T) -> None:
        """Forget an item, if it is here."""
        self._due.pop(item, None)

    def take_due(self) -> list[T]:
        """Remove and return the items whose deadline has come."""
        now = time.monotonic()
        taken = list(takewhile(lambda item: self._due[item] <= now, self._due))
        for item in taken:
            del self._due[item]
        return taken
