"""When a child that ended may be started again: back-off, budget, boot failures. Pure.

Rules
- The back-off doubles from `first_seconds` to `longest_seconds` and starts over once a child has
  been well for `longest_seconds`.
- More than `budget` restarts in `budget_window_seconds` wait until the oldest is that old.
- A child that ends before it was ever ready failed to boot; `boot_failures` counts those in a row.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How often, and how soon, a child is started again."""

    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    budget: int = 5
    budget_window_seconds: float = 60.0
    boot_failures: int = 3


class Backoff:
    """The restarts of one place; `now` is passed in."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._delay = policy.first_seconds
        self._starts: deque[float] = deque(maxlen=policy.budget)
        self.boot_failures = 0

    def failed_to_boot(self) -> bool:
        """Count a boot failure; returns whether it was one too many."""
        self.boot_failures += 1
        return self.boot_failures >= self._policy.boot_failures

    def booted(self) -> None:
        """A child became ready: what failed before is forgiven."""
        self.boot_failures = 0

    def delay(self, now: float, well_for: float) -> float:
        """Seconds to wait before the next start.

        Args:
            now: monotonic time.
            well_for: how long the child that ended had been ready; 0 if never.
        """
        policy = self._policy
        if well_for >= policy.longest_seconds:
            self._delay = policy.first_seconds
        wait = self._delay
        self._delay = min(self._delay * 2, policy.longest_seconds)
        if self.is_budget_spent(now):
            wait = max(wait, self._starts[0] + policy.budget_window_seconds - now)
        self._starts.append(now + wait)
        return wait

    def is_budget_spent(self, now: float) -> bool:
        """Whether the window already holds as many restarts as it may."""
        full = len(self._starts) == self._policy.budget
        return full and now - self._starts[0] < self._policy.budget_window_seconds
