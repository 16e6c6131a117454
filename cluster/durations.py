"""Durations and points in time, read and written: the one parser of durations.

Rules
- Inside the program a point in time is Unix seconds (float), a duration is seconds.
- Times are shown in UTC, as in the logs.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

#: One duration as Prometheus and Alertmanager write it in their files: whole numbers, each with a unit.
PROMETHEUS_DURATION: Final = r"(?:\d+(?:ms|[smhdwy]))+"
_UNITS: Final = {
    "ms": 0.001,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
    "y": 31536000.0,
}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdwy])")


def seconds_of(text: str) -> float:
    """The seconds of a duration such as `90s`, `2h`, `1h30m`, `7d`, or a bare number of seconds.

    Raises:
        ValueError: if it is not a duration, negative or infinite; the text says what is allowed.
    """
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{text!r} is not a duration: write one such as 90s, 30m, 2h or 7d")
    return seconds


def duration_for_people(seconds: float) -> str:
    """A duration, rounded for reading: `45s`, `12m`, `3h20m`, `2d4h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    for size, unit, smaller, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "m")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{unit}" + (f"{rest}{small}" if rest else "")
    rest = whole % 60
    return f"{whole // 60}m" + (f"{rest}s" if rest and whole < 600 else "")


def unix(text: str) -> float:
    """The Unix time of an RFC 3339 timestamp; 0.0 for Go's zero time.

    Raises:
        ValueError: if it is not a timestamp.
    """
    moment = datetime.fromisoformat(text)
    if moment.year < 1970:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def rfc3339(at: float) -> str:
    """A point in time as Alertmanager expects it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def time_for_people(at: float | None) -> str:
    """A point in time for a terminal; a dash for none."""
    if not at:
        return "-"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
