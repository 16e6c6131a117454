"""The ramp finds the knee."""

from __future__ import annotations

from loadtest.shapes import Ramp


def climb(
    ramp: Ramp, breaks_at: int, *, p99_ms: float = 999, error_share: float = 0.0
) -> list[int]:
    """Users of each step, against a cluster that is bad from so many on."""
    steps = []
    users = ramp.next(None, 0.0)
    while users is not None:
        steps.append(users)
        is_bad = users >= breaks_at
        users = ramp.next(p99_ms if is_bad else 5.0, error_share if is_bad else 0.0)
    return steps


def ramp() -> Ramp:
    return Ramp(step=100, most=1000, p99_ms=250, error_share=0.01)


def test_it_stops_where_it_is_bad_twice_and_says_why():
    one = ramp()
    assert climb(one, 400) == [100, 200, 300, 400, 400]
    assert one.capacity == 300
    assert one.knee == "at 400 users p99 was 999 ms, above 250 ms"


def test_errors_are_a_knee_too():
    one = ramp()
    climb(one, 200, p99_ms=1, error_share=0.2)
    assert one.capacity == 100
    assert "20.0 % of events failed" in one.knee


def test_without_a_knee_it_ends_at_the_most():
    one = ramp()
    assert climb(one, 5000)[-1] == 1000
    assert (one.capacity, one.knee) == (1000, "")


def test_one_bad_step_is_a_hiccup():
    one = ramp()
    one.next(None, 0.0)
    assert one.next(999, 0.0) == 100
    assert one.next(5, 0.0) == 200
    assert one.capacity == 100
