"""Back-off, budget and boot failures, with the clock in our hands."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.children.backoff import Backoff, RestartPolicy

POLICY = RestartPolicy()


def test_the_first_pauses_double_from_half_a_second():
    restarts = Backoff(RestartPolicy(budget=100))
    assert [restarts.delay(0.0, 0.0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_child_that_was_well_for_long_starts_over():
    restarts = Backoff(RestartPolicy(budget=100))
    for _ in range(5):
        restarts.delay(0.0, 0.0)
    assert restarts.delay(0.0, 30.0) == 0.5


def test_a_sixth_restart_within_a_minute_waits_for_the_first_to_be_a_minute_old():
    restarts = Backoff(POLICY)
    now = 100.0
    for _ in range(5):
        now += restarts.delay(now, 30.0)
    assert restarts.is_budget_spent(now)
    assert now + restarts.delay(now, 30.0) == 100.5 + 60


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0, 100)), max_size=60))
def test_no_minute_ever_holds_more_restarts_than_the_budget(lives):
    restarts, now, starts = Backoff(POLICY), 0.0, []
    for lived, well in lives:
        now += lived
        now += restarts.delay(now, well)
        starts.append(now)
    for index in range(len(starts) - POLICY.budget):
        assert starts[index + POLICY.budget] - starts[index] >= 60 - 1e-6


def test_the_third_boot_failure_in_a_row_is_one_too_many():
    restarts = Backoff(POLICY)
    assert [restarts.failed_to_boot() for _ in range(3)] == [False, False, True]


def test_a_boot_in_between_forgives_what_failed_before():
    restarts = Backoff(POLICY)
    restarts.failed_to_boot()
    restarts.failed_to_boot()
    restarts.booted()
    assert not restarts.failed_to_boot()
