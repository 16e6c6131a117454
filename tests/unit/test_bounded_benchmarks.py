"""The benchmarks of the server API, of presence and of attacks fail when a bound is broken."""

from __future__ import annotations

import pytest

from benchmarks.api.__main__ import (
    LOADS,
    LONGEST_TURN_MS,
    PUBLISHES_PER_CORE,
    Samples,
    faults,
    page,
)
from benchmarks.api.publishers import Broadcast, Published
from benchmarks.attacks.__main__ import LONGEST_TURN_MS as LONGEST_TURN_UNDER_ATTACK_MS
from benchmarks.attacks.__main__ import MOST_TIMES, Outcome, Round
from benchmarks.load.measure import Result
from benchmarks.presence import Row


def samples(
    *, per_core: float = PUBLISHES_PER_CORE, cpu_ms: float = 2.0, held_ms: float = 3.0
) -> Samples:
    """Three rounds of one server; two of three are at the given figures."""
    found = Samples()
    for load in LOADS:
        found.published[load] = [
            Published(int(each), 1.0, 1.0, 0.1) for each in (per_core, per_core, 4 * per_core)
        ]
    found.broadcasts = [
        Broadcast(0.1, 0.1, clock, cpu) for clock, cpu in ((held_ms, 1), (held_ms, cpu_ms), (1, 1))
    ]
    return found


def test_figures_at_the_bounds_are_no_faults():
    assert faults(samples(cpu_ms=LONGEST_TURN_MS, held_ms=LONGEST_TURN_MS)) == []


@pytest.mark.parametrize(
    ("slow", "count"),
    [
        (samples(per_core=PUBLISHES_PER_CORE - 1), len(LOADS)),
        (samples(cpu_ms=LONGEST_TURN_MS + 0.1), 1),
        (samples(held_ms=LONGEST_TURN_MS + 0.1), 1),
    ],
    ids=["publishes", "one turn of CPU", "a turn that is blocked"],
)
def test_a_broken_bound_of_the_server_api_is_a_fault_and_a_failed_row(slow: Samples, count: int):
    assert len(faults(slow)) == count
    written = page({"ours": slow}, [], "Machine.", 3)
    assert written.count("| FAIL |") == count
    assert written.count("| pass |") == len(LOADS) + 1 - count


def test_a_broadcast_without_measured_turns_is_a_fault():
    unmeasured = samples()
    unmeasured.broadcasts = [Broadcast(0.1, 0.1, None, None)]
    assert len(faults(unmeasured)) == 2


def test_a_row_of_presence_is_broken_by_its_median_or_by_its_worst_round():
    values = [1.0, 3.0, 9.0]
    assert not Row("a", "ms", values, 3.0).is_broken
    assert Row("a", "ms", values, 2.9).is_broken
    assert not Row("a", "ms", values, 9.0, is_worst=True).is_broken
    assert Row("a", "ms", values, 8.9, is_worst=True).is_broken
    assert not Row("a", "ms", values).is_broken
    assert Row("a", "ms", values, 2.9).line().endswith("| FAIL |")


def outcome(
    *, turn_ms: float = 1.0, p99_ms: float = 1.0, closed: int = 0, lost: int | None = 0
) -> Outcome:
    """Three rounds of an attack; the last is at the given figures."""

    def window(p99_ms: float, closed: int, lost: int | None) -> Result:
        return Result(1, 1.0, 1, {}, {}, closed, [], lost, arrivals_ms={"p99": p99_ms})

    good, last = window(1.0, 0, 0), window(p99_ms, closed, lost)
    rounds = [Round(1.0, good, window(p99_ms, 0, 0), 1, 1) for _ in range(2)]
    return Outcome("kind", [*rounds, Round(turn_ms, good, last, 1, 1)])


def test_an_attack_at_the_bounds_is_no_fault():
    assert outcome(turn_ms=LONGEST_TURN_UNDER_ATTACK_MS, p99_ms=MOST_TIMES).faults == []


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (outcome(turn_ms=LONGEST_TURN_UNDER_ATTACK_MS + 1), "a turn of 101 ms"),
        (outcome(p99_ms=MOST_TIMES + 0.1), "2.1 times as long"),
        (outcome(closed=1), "1 good clients were closed"),
        (outcome(lost=3), "3 deliveries were lost"),
        (outcome(lost=None), "not known whether deliveries were lost"),
    ],
    ids=["turn", "times", "closed", "lost", "unknown"],
)
def test_a_broken_bound_under_attack_or_one_that_is_not_known_is_a_fault(
    broken: Outcome, reason: str
):
    [fault] = broken.faults
    assert reason in fault
