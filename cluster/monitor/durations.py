"""Points and stretches of time as people and programs write them.

Rules: inside the program a point in time is Unix seconds (float), a stretch is seconds; shown
times are UTC, as those of the logs.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")


def seconds_of(text: str) -> float:
    """The seconds of a stretch such as `90s`, `2h`, `1h30m`, `7d`, or a bare number of seconds.

    Raises:
        ValueError: if it is none; the text says what is allowed.
    """
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{text!r} is no duration: write one such as 90s, 30m, 2h or 7d")
    return seconds


def stretch(seconds: float) -> str:
    """A stretch as people read it: `45s`, `12m`, `3h20m`, `2d4h`."""
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
        ValueError: if it is none.
    """
    moment = datetime.fromisoformat(text)
    if moment.year < 1970:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def rfc3339(at: float) -> str:
    """A point in time as Alertmanager wants it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def shown(at: float | None) -> str:
    """A point in time on a screen; a dash for none."""
    if not at:
        return "-"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
