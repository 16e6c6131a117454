"""Whether a child's event loop still runs, judged by the time of its last heartbeat. Pure.

Rules
- A child is hung if no heartbeat arrived for `limit_seconds` while the supervisor was running.
- Pauses of the supervisor (stopped, swapped out or starved of CPU) do not count against a child.
"""

from __future__ import annotations

HUNG_AFTER_SECONDS = 5.0


class Heartbeat:
    """The time of the last heartbeat of one child; the current time is passed in as `now`."""

    def __init__(self, now: float, limit_seconds: float = HUNG_AFTER_SECONDS) -> None:
        self._last = now
        self._limit = limit_seconds

    def beat(self, now: float) -> None:
        """Record a heartbeat."""
        self._last = now

    def discount(self, seconds: float) -> None:
        """Ignore `seconds` in which the supervisor did not run."""
        self._last += seconds

    def is_hung(self, now: float) -> bool:
        """Whether the last heartbeat is `limit_seconds` old."""
        return now - self._last >= self._limit


class PauseDetector:
    """Measures pauses of this process: how much later than planned a regular tick came."""

    def __init__(self, now: float, interval_seconds: float) -> None:
        self._interval = interval_seconds
        self._last = now

    def tick(self, now: float) -> float:
        """Return by how many seconds this tick came later than planned."""
        late = now - self._last - self._interval
        self._last = now
        return max(0.0, late)
