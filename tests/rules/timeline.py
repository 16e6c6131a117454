"""Series as they pass in time, and what an alert is seen to do: the words the cases are written in.

Rules
- Virtual time: a sample every 15 s, as docker/prometheus.yml scrapes (every minute where a case
  goes over half a day). In compressed time the same
  samples stand closer together, so one case holds for every compression.
- A counter climbs by a rate per real second (thresholds are per real second in every variant); a
  gauge drifts per virtual minute; a moment is a time stamp.
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
class Tape:
    """The samples of one series while they are written."""

    compress: float
    step: int = STEP_SECONDS
    samples: list[str] = field(default_factory=list)
    last: float = 0.0

    @property
    def now(self) -> int:
        return len(self.samples) * self.step

    def put(self, value: float) -> None:
        self.last = value
        self.samples.append(f"{value:.12g}")


Piece = Callable[[Tape], None]


def _each(duration: str, write: Callable[[Tape], None]) -> Piece:
    def piece(tape: Tape) -> None:
        for _ in range(length(duration) // tape.step):
            write(tape)

    return piece


def hold(value: float, duration: str) -> Piece:
    return _each(duration, lambda tape: tape.put(value))


def climb(per_second: float, duration: str) -> Piece:
    """A counter at this rate; its first sample ever is 0."""

    def write(tape: Tape) -> None:
        step = per_second * tape.step / tape.compress
        tape.put(tape.last + step if tape.samples else 0.0)

    return _each(duration, write)


def add(count: float, duration: str) -> Piece:
    """A counter that jumps and then stays."""

    def piece(tape: Tape) -> None:
        tape.last += count
        _each(duration, lambda tape: tape.put(tape.last))(tape)

    return piece


def drift(per_minute: float, duration: str) -> Piece:
    """A gauge that goes on from where it is."""
    return _each(duration, lambda tape: tape.put(tape.last + per_minute * tape.step / 60))


def moment(at: str, duration: str) -> Piece:
    """A time stamp that stays."""
    return _each(duration, lambda tape: tape.put(length(at) / tape.compress))


def clock(behind: str, duration: str) -> Piece:
    """A time stamp that goes along, some time behind."""
    return _each(duration, lambda tape: tape.put((tape.now - length(behind)) / tape.compress))


def gone(duration: str) -> Piece:
    """The series ends with a staleness marker, as when its target goes."""

    def piece(tape: Tape) -> None:
        tape.samples += ["stale"] + ["_"] * (length(duration) // tape.step - 1)

    return piece


@dataclass(frozen=True, slots=True)
class Series:
    name: str
    labels: Mapping[str, str]
    pieces: tuple[Piece, ...]

    def values(self, compress: float, step: int) -> str:
        tape = Tape(compress, step)
        for piece in self.pieces:
            piece(tape)
        return " ".join(tape.samples)

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
    """One course of events.

    Attributes:
        kinds: which of the six questions it answers.
        at: virtual time to the alerts that are seen then; an empty list is quiet.
        says: virtual time and description of the only alert that fires then.
    """

    name: str
    kinds: str
    series: Sequence[Series]
    at: Mapping[str, Sequence[Seen]]
    says: tuple[str, str] | None = None
