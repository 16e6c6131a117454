"""When to restart a child: exponential back-off, restart budget, boot failures. Pure.

Rules
- The delay doubles from `first_seconds` to `longest_seconds`. It is reset after a child was ready
  for `longest_seconds`.
- At most `budget` restarts happen within `budget_window_seconds`; further ones are delayed.
- A child that ends before it was ever ready failed to boot; `boot_failures` counts those in a row.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Delays and limits of restarts."""

    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    budget: int = 5
    budget_window_seconds: float = 60.0
    boot_failures: int = 3


class Backoff:
    """The restart state of one service; the current time is passed in as `now`."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._delay = policy.first_seconds
        self._starts: deque[float] = deque(maxlen=policy.budget)
        self.boot_failures = 0

    def record_boot_failure(self) -> bool:
        """Count a boot failure; returns whether the limit is reached."""
        self.boot_failures += 1
        return self.boot_failures >= self._policy.boot_failures

    def record_boot(self) -> None:
        """Reset the boot failures, because a child has become ready."""
        self.boot_failures = 0

    def delay(self, now: float, ready_seconds: float) -> float:
        """Return the seconds to wait before the next start, and count that start.

        Args:
            now: monotonic time.
            ready_seconds: how long the child that ended had been ready; 0 if it never was.
        """
        policy = self._policy
        if ready_seconds >= policy.longest_seconds:
            self._delay = policy.first_seconds
        wait = self._delay
        self._delay = min(self._delay * 2, policy.longest_seconds)
        if self.is_budget_spent(now):
            wait = max(wait, self._starts[0] + policy.budget_window_seconds - now)
        self._starts.append(now + wait)
        return wait

    def is_budget_spent(self, now: float) -> bool:
        """Whether the window already contains `budget` restarts."""
        full = len(self._starts) == self._policy.budget
        return full and now - self._starts[0] < self._policy.budget_window_seconds
