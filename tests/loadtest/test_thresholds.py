"""Limits of a run are read, judged and refused with a sentence."""

from __future__ import annotations

import pytest

from loadtest import thresholds

SUMMARY = {
    "lost": 0,
    "p99_ms": 12.0,
    "got": 300,
    "seconds": 10,
    "p50_ms": None,
    "events": {"connect": {"count": 3515, "failures": 500, "p99_ms": 40}},
}


def verdicts(text: str) -> list[bool]:
    return [limit.is_met(thresholds.seen(SUMMARY, limit.name)) for limit in thresholds.parse(text)]


def test_counts_and_times_are_at_most_and_rates_at_least():
    assert verdicts("p99_ms=12,lost=0,connects_per_second=300,messages_per_second=30") == [True] * 4
    assert verdicts("p99_ms=11.9,connects_per_second=302,messages_per_second=31") == [False] * 3


def test_what_was_not_measured_is_not_met():
    assert verdicts("p50_ms=100") == [False]
    assert "not measured" in thresholds.parse("p50_ms=100")[0].verdict(None)


def test_an_event_has_a_limit_of_its_own():
    assert verdicts("connect_p99_ms=40,publish_p99_ms=40") == [True, False]


@pytest.mark.parametrize(
    ("text", "says"),
    [("lost", "'lost' is no limit"), ("speed=3", "'speed=3'"), ("lost=none", "'none' of lost")],
)
def test_nonsense_is_refused_with_what_is_allowed(text: str, says: str):
    with pytest.raises(ValueError, match=r"--expect: .*") as caught:
        thresholds.parse(text)
    assert says in str(caught.value)


def test_no_limits_are_none():
    assert thresholds.parse("") == []
