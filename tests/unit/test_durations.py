"""One parser of durations, for configuration, command lines, Alertmanager's routes and the rules."""

from __future__ import annotations

import pytest

from cluster import durations
from cluster.config.reader import parse_seconds
from cluster.errors import ConfigError
from cluster.monitor.stack import render

WRITTEN = [
    ("30m", 1800),
    ("1h30m", 5400),
    ("500ms", 0.5),
    ("0s", 0),
    ("1w", 604800),
    ("1y", 31536000),
]


@pytest.mark.parametrize(("text", "seconds"), [*WRITTEN, ("90", 90), ("1.5s", 1.5), ("0", 0)])
def test_durations(text: str, seconds: float):
    assert durations.seconds_of(text) == seconds
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(("text", "seconds"), [*WRITTEN, ("0", 0)])
def test_the_rules_have_the_same_units(text: str, seconds: float):
    assert render.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5", "5 m", "1h 30m", "nan", "inf"])
def test_what_is_not_a_duration_is_refused(text: str):
    with pytest.raises(ValueError, match="is not a duration"):
        durations.seconds_of(text)
    with pytest.raises(ValueError, match="is not a duration"):
        parse_seconds(text)


@pytest.mark.parametrize("text", ["90", "1.5s", "-5s", ""])
def test_the_rules_have_no_fractions_and_no_number_without_a_unit(text: str):
    with pytest.raises(ConfigError):
        render.seconds(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (90, "1m30s"), (660, "11m"), (3600, "1h"), (100000, "1d3h")],
)
def test_durations_for_people_are_short(seconds: float, text: str):
    assert durations.duration_for_people(seconds) == text


def test_times_are_shown_in_utc():
    at = durations.unix("2026-01-02T03:04:05.123456789+01:00")
    assert durations.time_for_people(at) == "2026-01-02 02:04:05Z"
    assert durations.rfc3339(at) == "2026-01-02T02:04:05.123Z"
    assert durations.time_for_people(durations.unix("0001-01-01T00:00:00Z")) == "-"
