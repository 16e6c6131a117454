"""Checks that an alert stays inactive while its value is just below the threshold.

Rule: far below the threshold every rule is inactive. So time counts only from the moment at which the value
that the alert compares is near the threshold; if the expression is no simple comparison, from the start.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from cluster.alerting.prometheus import Rule
from loadtest.drilling.steps.diagnosis import comparison

# How close to the threshold counts as just below it.
NEAR: Final = 0.75


class NotBelow(Exception):
    """The alert became active, or the value never came near the threshold."""


class BelowThreshold:
    """One wait just below a threshold.

    Args:
        hold_seconds: how long the alert must stay inactive.
        patience_seconds: how long the value may take to come near the threshold.
    """

    def __init__(
        self,
        hold_seconds: float,
        patience_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.highest: float | None = None
        self._hold_seconds = hold_seconds
        self._clock = clock
        self._gives_up_at = clock() + patience_seconds
        self._ends_at: float | None = None

    def check(self, rule: Rule | None, value: float | None) -> bool:
        """Check once; returns whether it has been inactive for long enough.

        Raises:
            NotBelow: if it is pending or firing, or the value did not come near in time.
        """
        if rule is not None and rule.alerts:
            raise NotBelow(f"threshold: the alert is {rule.state} although the value is below it")
        if value is not None:
            self.highest = value if self.highest is None else max(self.highest, value)
        found = comparison(rule.expression) if rule is not None else None
        if self._ends_at is None and (found is None or self._is_near(found[2])):
            self._ends_at = self._clock() + self._hold_seconds
        if self._ends_at is not None:
            return self._clock() >= self._ends_at
        if self._clock() > self._gives_up_at:
            seen = "no value" if self.highest is None else f"{self.highest:g} at most"
            threshold = found[2] if found is not None else 0.0
            raise NotBelow(
                f"cause: the value did not come near the threshold {threshold:g}: {seen}"
            )
        return False

    def _is_near(self, threshold: float) -> bool:
        return self.highest is not None and self.highest >= NEAR * threshold
