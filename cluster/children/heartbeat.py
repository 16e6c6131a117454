"""Whether a child's event loop still turns, judged by when it was last heard. Pure.

Rules
- A child is hung when it was silent for `limit_seconds` of time in which we could have heard it.
- Pauses of our own (a stopped, swapped or starved supervisor) are discounted for every child.
"""

from __future__ import annotations

HUNG_AFTER_SECONDS = 5.0


class Heartbeat:
    """The last sign of life of one child; `now` is passed in."""

    def __init__(self, now: float, limit_seconds: float = HUNG_AFTER_SECONDS) -> None:
        self._last = now
        self._limit = limit_seconds

    def beat(self, now: float) -> None:
        """The child was heard."""
        self._last = now

    def discount(self, seconds: float) -> None:
        """We were away for `seconds`; the child is not to blame for them."""
        self._last += seconds

    def is_hung(self, now: float) -> bool:
        """Whether the child has been silent for too long."""
        return now - self._last >= self._limit


class Pauses:
    """Finds our own pauses: how much later than planned a regular tick came."""

    def __init__(self, now: float, interval_seconds: float) -> None:
        self._interval = interval_seconds
        self._last = now

    def tick(self, now: float) -> float:
        """Seconds we were away since the last tick, beyond the planned interval."""
        late = now - self._last - self._interval
        self._last = now
        return max(0.0, late)
