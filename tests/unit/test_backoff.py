"""Back-off, budget and boot failures, with a clock that the tests control."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.children.backoff import Backoff, RestartPolicy

POLICY = RestartPolicy()


def test_the_delay_doubles_from_half_a_second_to_thirty():
    backoff = Backoff(RestartPolicy(budget=100))
    assert [backoff.delay(0.0, 0.0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_child_that_was_ready_for_long_resets_the_delay():
    backoff = Backoff(RestartPolicy(budget=100))
    for _ in range(5):
        backoff.delay(0.0, 0.0)
    assert backoff.delay(0.0, 30.0) == 0.5


def test_a_sixth_restart_within_a_minute_waits_until_the_first_is_a_minute_old():
    backoff = Backoff(POLICY)
    now = 100.0
    for _ in range(5):
        now += backoff.delay(now, 30.0)
    assert backoff.is_budget_spent(now)
    assert now + backoff.delay(now, 30.0) == 100.5 + 60


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0, 100)), max_size=60))
def test_no_minute_contains_more_restarts_than_the_budget(lives):
    backoff, now, starts = Backoff(POLICY), 0.0, []
    for lived, ready_seconds in lives:
        now += lived
        now += backoff.delay(now, ready_seconds)
        starts.append(now)
    for index in range(len(starts) - POLICY.budget):
        assert starts[index + POLICY.budget] - starts[index] >= 60 - 1e-6


def test_the_third_boot_failure_in_a_row_reaches_the_limit():
    backoff = Backoff(POLICY)
    assert [backoff.record_boot_failure() for _ in range(3)] == [False, False, True]


def test_a_successful_boot_resets_the_boot_failures():
    backoff = Backoff(POLICY)
    backoff.record_boot_failure()
    backoff.record_boot_failure()
    backoff.record_boot()
    assert not backoff.record_boot_failure()
