"""Series over time, and the states of an alert: what the cases are written in.

Rules
- Virtual time: a sample every 15 s, as docker/prometheus.yml scrapes (every minute if a case lasts
  more than half a day). In compressed time the same samples are closer together, so one case holds
  for every compression.
- A counter climbs by a rate per real second (thresholds are per real second in every variant); a
  gauge drifts per virtual minute; a moment is a timestamp.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

STEP_SECONDS = 15
KINDS = frozenset({"fires", "below", "boundary", "vanishes", "replicas", "resolves"})

_UNITS = {"s": 1, "m": 60, "h": 3600}


def length(duration: str) -> int:
    """A duration such as `1h5m` or `-1h` in virtual seconds."""
    total = sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)([smh])", duration))
    return -total if duration.startswith("-") else total


@dataclass(slots=True)
class Samples:
    """The samples of one series, while a case writes them."""

    compress: float
    step: int = STEP_SECONDS
    values: list[str] = field(default_factory=list)
    last: float = 0.0

    @property
    def now(self) -> int:
        return len(self.values) * self.step

    def put(self, value: float) -> None:
        self.last = value
        self.values.append(f"{value:.12g}")


Piece = Callable[[Samples], None]


def _each(duration: str, write: Callable[[Samples], None]) -> Piece:
    def piece(samples: Samples) -> None:
        for _ in range(length(duration) // samples.step):
            write(samples)

    return piece


def hold(value: float, duration: str) -> Piece:
    return _each(duration, lambda samples: samples.put(value))


def climb(per_second: float, duration: str) -> Piece:
    """A counter at this rate; its first sample ever is 0."""

    def write(samples: Samples) -> None:
        step = per_second * samples.step / samples.compress
        samples.put(samples.last + step if samples.values else 0.0)

    return _each(duration, write)


def add(count: float, duration: str) -> Piece:
    """A counter that jumps and then stays."""

    def piece(samples: Samples) -> None:
        samples.last += count
        _each(duration, lambda samples: samples.put(samples.last))(samples)

    return piece


def drift(per_minute: float, duration: str) -> Piece:
    """A gauge that changes from its last value."""
    return _each(
        duration, lambda samples: samples.put(samples.last + per_minute * samples.step / 60)
    )


def moment(at: str, duration: str) -> Piece:
    """A timestamp that stays the same."""
    return _each(duration, lambda samples: samples.put(length(at) / samples.compress))


def clock(behind: str, duration: str) -> Piece:
    """A timestamp that advances with the time, some time behind it."""
    return _each(
        duration, lambda samples: samples.put((samples.now - length(behind)) / samples.compress)
    )


def gone(duration: str) -> Piece:
    """The series ends with a staleness marker, as when its target disappears."""

    def piece(samples: Samples) -> None:
        samples.values += ["stale"] + ["_"] * (length(duration) // samples.step - 1)

    return piece


@dataclass(frozen=True, slots=True)
class Series:
    name: str
    labels: Mapping[str, str]
    pieces: tuple[Piece, ...]

    def values(self, compress: float, step: int) -> str:
        samples = Samples(compress, step)
        for piece in self.pieces:
            piece(samples)
        return " ".join(samples.values)

    def __str__(self) -> str:
        labels = ", ".join(f'{key}="{value}"' for key, value in self.labels.items())
        return f"{self.name}{{{labels}}}"


def app(name: str, *pieces: Piece, instance: str = "a", **labels: str) -> Series:
    """A series of the application."""
    return Series(name, {"job": "websocket-app", "instance": instance, **labels}, pieces)


def of(job: str, name: str, *pieces: Piece, instance: str = "a", **labels: str) -> Series:
    """A series of another job."""
    return Series(name, {"job": job, "instance": instance, **labels}, pieces)


@dataclass(frozen=True, slots=True)
class Seen:
    """One alert as Prometheus shows it."""

    state: str
    labels: Mapping[str, str]


def pending(**labels: str) -> list[Seen]:
    return [Seen("pending", labels)]


def firing(**labels: str) -> list[Seen]:
    return [Seen("firing", labels)]


@dataclass(frozen=True, slots=True)
class Case:
    """One sequence of events, and the alerts that follow.

    Attributes:
        kinds: which of the six questions it answers.
        at: virtual time to the alerts that exist then; an empty list means none.
        says: virtual time and description of the only alert that fires then.
    """

    name: str
    kinds: str
    series: Sequence[Series]
    at: Mapping[str, Sequence[Seen]]
    says: tuple[str, str] | None = None
