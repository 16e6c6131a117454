"""Just below a threshold: held there, quiet, and not far from it."""

from __future__ import annotations

import dataclasses

import pytest

from loadtest.drilling.steps.below_threshold import BelowThreshold, NotBelow
from tests.drilling.test_soak import rule

QUIET = dataclasses.replace(rule("X"), expression="app_x > 100")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def below() -> tuple[BelowThreshold, Clock]:
    clock = Clock()
    return BelowThreshold(10.0, 30.0, clock=clock), clock


def test_time_counts_from_where_the_value_is_near():
    one, clock = below()
    assert not one.check(QUIET, 10.0)
    clock.now = 20.0
    assert not one.check(QUIET, 90.0)
    clock.now = 29.0
    assert not one.check(QUIET, 90.0)
    clock.now = 30.0
    assert one.check(QUIET, 89.0)
    assert one.highest == 90.0


def test_a_value_that_never_comes_near_proves_nothing():
    one, clock = below()
    one.check(QUIET, 50.0)
    clock.now = 31.0
    with pytest.raises(NotBelow, match="value did not come near the threshold 100: 50 at most"):
        one.check(QUIET, None)


def test_an_alert_that_is_pending_below_its_threshold_is_a_failure():
    one, _ = below()
    with pytest.raises(NotBelow, match="pending although the value is below it"):
        one.check(dataclasses.replace(rule("X", "pending"), expression="app_x > 100"), 90.0)


def test_what_is_no_comparison_is_held_from_the_beginning():
    one, clock = below()
    odd = dataclasses.replace(QUIET, expression="a > 1 and b < 2")
    assert not one.check(odd, None)
    clock.now = 10.0
    assert one.check(odd, None)
