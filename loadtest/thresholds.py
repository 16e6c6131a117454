"""The limits of a run, as given by `--expect p99_ms=250,lost=0`.

Rule: `lost`, `twice`, `errors` and other counts and times must be at most the limit; the names in
`AT_LEAST` are at least that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

AT_MOST: Final = (
    "lost",
    "twice",
    "out_of_order",
    "unrecoverable",
    "unknown",
    "refused",
    "errors",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "connect_p99_ms",
    "publish_p99_ms",
)
AT_LEAST: Final = ("got", "acknowledged", "connects_per_second", "messages_per_second")


@dataclass(frozen=True, slots=True)
class Threshold:
    """One limit."""

    name: str
    value: float

    def is_met(self, seen: float | None) -> bool:
        """Whether a value meets it; a value that was not measured does not."""
        if seen is None:
            return False
        return seen >= self.value if self.name in AT_LEAST else seen <= self.value

    def verdict(self, seen: float | None) -> str:
        """One line: the limit and the measured value."""
        word = "at least" if self.name in AT_LEAST else "at most"
        shown = "not measured" if seen is None else f"{seen:g}"
        result = "met" if self.is_met(seen) else "NOT MET"
        return f"{self.name}: {shown}, {word} {self.value:g}: {result}"


def parse(text: str) -> list[Threshold]:
    """The limits in `name=value,name=value`.

    Raises:
        ValueError: one makes no sense; says which, and what is allowed.
    """
    limits = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, separator, value = part.partition("=")
        if not separator or name not in (*AT_MOST, *AT_LEAST):
            allowed = ", ".join((*AT_MOST, *AT_LEAST))
            raise ValueError(
                f"--expect: {part!r} is no limit: give name=value with one of {allowed}"
            )
        try:
            limits.append(Threshold(name, float(value)))
        except ValueError:
            raise ValueError(f"--expect: {value!r} of {name} is no number") from None
    return limits


def seen(summary: Mapping[str, Any], name: str) -> float | None:
    """The measured value of a limit; None if it was not measured."""
    events, seconds = summary["events"], summary["seconds"] or 1
    if name == "connects_per_second":
        # Those that worked.
        connects = events.get("connect", {})
        return float(connects.get("count", 0) - connects.get("failures", 0)) / seconds
    if name == "messages_per_second":
        return float(summary["got"] / seconds)
    if name.endswith("_p99_ms"):
        found = events.get(name.removesuffix("_p99_ms"), {}).get("p99_ms")
        return None if found is None else float(found)
    value = summary.get(name)
    return None if value is None else float(value)
