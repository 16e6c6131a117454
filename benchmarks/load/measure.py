"""What one window of load cost: sums at its edges, CPU of the watched processes, latencies."""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.load.clients import Counters
from benchmarks.proc import cpu_seconds

Watched = Mapping[str, Sequence[int]]
"""Process ids by name: "server", "valkey", "nginx"."""


@dataclass(slots=True)
class Result:
    """One window. CPU and wall time in seconds; `deliveries` counts marks, or whole operations."""

    deliveries: int
    seconds: float
    bytes_in: int
    cpu_seconds: dict[str, float]
    latencies_ms: dict[str, float]
    closed: int
    reasons: list[str]
    lost: int | None = None
    """Deliveries that never came although the run was given time; None if it cannot be known."""
    memory: dict[str, float] = field(default_factory=dict)
    arrivals_ms: dict[str, float] = field(default_factory=dict)
    """As `latencies_ms`, but until a publication is at the client's socket (`load.arrivals`)."""


@dataclass(slots=True)
class Edge:
    """The state of everything at one moment."""

    at: float
    marks: int
    bytes_in: int
    cpu: dict[str, float]

    @classmethod
    def now(cls, counters: Counters, watched: Watched) -> "Edge":
        cpu = {name: sum(map(cpu_seconds, pids)) for name, pids in watched.items()}
        cpu["load"] = cpu_seconds(os.getpid())
        return cls(time.perf_counter(), counters.marks, counters.bytes_in, cpu)


def between(begin: Edge, end: Edge, counters: Counters, latencies: Sequence[float]) -> Result:
    return Result(
        deliveries=end.marks - begin.marks,
        seconds=end.at - begin.at,
        bytes_in=end.bytes_in - begin.bytes_in,
        cpu_seconds={name: end.cpu[name] - begin.cpu[name] for name in end.cpu},
        latencies_ms=percentiles(latencies),
        closed=counters.closed,
        reasons=counters.reasons,
    )


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {}
    ordered = sorted(seconds)
    last = len(ordered) - 1
    at = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: ordered[round(part * last)] * 1000 for name, part in at.items()}


async def settled(
    counters: Counters, expected: int, *, quiet_seconds: float = 1.5, at_most: float = 6.0
) -> bool:
    """Wait for what is still under way.

    Returns:
        True when everything has come, or nothing more came for a while: what is missing is lost.
        False when it kept coming (a slow server), so it cannot be known.
    """
    began = grew_at = time.perf_counter()
    marks = counters.marks
    while counters.marks < expected:
        await asyncio.sleep(0.05)
        now = time.perf_counter()
        if counters.marks > marks:
            marks, grew_at = counters.marks, now
        if now - grew_at > quiet_seconds:
            return True
        if now - began > at_most:
            return False
    return True
