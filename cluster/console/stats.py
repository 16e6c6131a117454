"""Numbers of the cluster, as one JSON document a second.

Rules
- Rates come from the difference of two readings; the first reading has none.
- `Meter.read` reads files and /proc: call it in a thread, one call at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cluster.metrics import system
from cluster.metrics.multiprocess import worker_values

RATE_SECONDS: Final = 5.0
ERROR_SECONDS: Final = 60.0
_CONNECTIONS: Final = "app_active_connections"
_COUNTED: Final = (
    "app_messages_total",
    "app_publications_total",
    "app_errors_total",
    "app_client_errors_total",
    "app_connections_opened_total",
)
_READ: Final = frozenset({_CONNECTIONS, "app_subscriptions", *_COUNTED})

Totals = dict[str, float]


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One worker as its supervisor knows it; `pid` is 0 while the slot has no process."""

    slot: int
    lane: str
    pid: int
    state: str
    reason: str
    up_seconds: float


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What the supervisor knows without reading anything."""

    is_ready: bool
    reason: str
    workers: Sequence[WorkerState]
    sessions: float
    capacity: int
    up_seconds: float


@dataclass(frozen=True, slots=True)
class EndedWorker:
    """How one worker ended; `at` is None if it was in an earlier run, whose times are not stored."""

    at: float | None
    lane: str
    outcome: str
    seconds: float | None
    phases: Mapping[str, float] = field(default_factory=dict)


class Meter:
    """Turns readings into rates.

    Args:
        path: the directory of the workers' multiprocess files.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._past: deque[tuple[float, Totals]] = deque()
        self._cpu: dict[tuple[str, int], tuple[float, float]] = {}

    def read(self, state: ClusterState, now: float) -> dict[str, Any]:
        """The current document; `now` is monotonic seconds."""
        totals, connections = self._totals()
        self._past.append((now, totals))
        while now - self._past[0][0] > ERROR_SECONDS and len(self._past) > 2:
            self._past.popleft()
        memory = system.memory()
        return {
            "ready": state.is_ready,
            "reason": state.reason,
            "up_seconds": state.up_seconds,
            "connections": totals.get(_CONNECTIONS, 0.0),
            "capacity": state.capacity,
            "subscriptions": totals.get("app_subscriptions", 0.0),
            "sessions": state.sessions,
            "messages_in_per_second": self._rate("app_messages_total:in", RATE_SECONDS),
            "messages_out_per_second": self._rate("app_messages_total:out", RATE_SECONDS),
            "publications_per_second": self._rate("app_publications_total", RATE_SECONDS),
            "opened_per_second": self._rate("app_connections_opened_total", RATE_SECONDS),
            "errors_last_minute": self._increase("app_errors_total", ERROR_SECONDS)[0],
            "client_errors_last_minute": self._increase("app_client_errors_total", ERROR_SECONDS)[
                0
            ],
            "memory_bytes": memory.working_set,
            "memory_limit_bytes": memory.limit,
            "workers": self._workers(state.workers, connections, now),
        }

    def _totals(self) -> tuple[Totals, dict[str, float]]:
        totals: Totals = {}
        connections: dict[str, float] = {}
        for lane, name, labels, value in worker_values(self._path, _READ):
            direction = labels.get("direction")
            key = f"{name}:{direction}" if direction else name
            totals[key] = totals.get(key, 0.0) + value
            if name == _CONNECTIONS:
                connections[lane] = connections.get(lane, 0.0) + value
        return totals, connections

    def _increase(self, name: str, seconds: float) -> tuple[float, float]:
        """How much a counter has grown in at most that many seconds, and in how many exactly."""
        now, latest = self._past[-1]
        then, earlier = next((at, old) for at, old in self._past if now - at <= seconds)
        return max(0.0, latest.get(name, 0.0) - earlier.get(name, 0.0)), now - then

    def _rate(self, name: str, seconds: float) -> float:
        increase, elapsed = self._increase(name, seconds)
        return increase / elapsed if elapsed > 0 else 0.0

    def _workers(
        self, workers: Sequence[WorkerState], connections: Mapping[str, float], now: float
    ) -> list[dict[str, Any]]:
        before, self._cpu = self._cpu, {}
        rows = []
        for worker in workers:
            used = system.process(worker.pid) if worker.pid else None
            row: dict[str, Any] = {
                "slot": worker.slot,
                "lane": worker.lane,
                "state": worker.state,
                "reason": worker.reason,
                "up_seconds": worker.up_seconds,
                "connections": connections.get(worker.lane, 0.0),
            }
            if used is not None:
                key = (worker.lane, worker.pid)
                at, seconds = before.get(key, (now, used.cpu_seconds))
                self._cpu[key] = (now, used.cpu_seconds)
                row |= {
                    "cpu": (used.cpu_seconds - seconds) / (now - at) if now > at else None,
                    "resident_bytes": used.resident_bytes,
                    "open_fds": used.open_fds,
                    "max_fds": used.max_fds,
                }
            rows.append(row)
        return rows
