"""The families of the supervisor: about the whole cluster, and about each worker's process.

Rules
- Every family is in the catalogue; another name cannot be set.
- Counters and histograms of this process exist at 0 from the start, with all labels.
- `exposition` reads files and /proc: call it in a thread, one call at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cluster.metrics import system
from cluster.metrics.catalogue import LOG_LEVELS, LOG_OUTPUTS, SUPERVISOR_FAMILIES, Family
from cluster.metrics.multiprocess import WorkerCollector, live_values

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

_EVENTS: Final = (
    "app_worker_restarts_total",
    "app_worker_exits_total",
    "app_metrics_collect_errors_total",
    "app_admin_connections_rejected_total",
    "app_admin_requests_rejected_total",
    "app_supervisor_errors_total",
)
SESSION_FAMILIES: Final = tuple(
    family.name for family in SUPERVISOR_FAMILIES if family.name.startswith("app_sessions_")
)
_FAMILIES: Final = {family.name: family for family in SUPERVISOR_FAMILIES}


class SupervisorMetrics:
    """The metrics served at /metrics of the admin port.

    Args:
        path: the directory of the workers' multiprocess files.
        version: the version of this program.
        revision: the revision of its source.
        running: called at each scrape; returns the process ids of the running workers by lane.
    """

    def __init__(
        self,
        path: Path,
        *,
        version: str,
        revision: str,
        running: Callable[[], Mapping[str, int]],
    ) -> None:
        disable_created_metrics()
        self._registry = CollectorRegistry(auto_describe=False)
        self._log_events = dict.fromkeys(LOG_LEVELS, 0)
        self._log_lines_dropped = dict.fromkeys(LOG_OUTPUTS, 0)
        self._counters = {name: _counter(_FAMILIES[name], self._registry) for name in _EVENTS}
        self._histograms = {
            family.name: _histogram(family, self._registry)
            for family in SUPERVISOR_FAMILIES
            if family.kind == "histogram"
        }
        self._lanes = WorkerCollector(
            path,
            own={
                "app_log_events_total": self._log_events,
                "app_log_lines_dropped_total": self._log_lines_dropped,
            },
            failed=lambda: self.count("app_metrics_collect_errors_total"),
        )
        self._values = _ValueCollector(path, running, self._lanes)
        self.version = version
        self.set("app_build_info", 1, version=version, revision=revision)
        self.set("app_deployment_timestamp_seconds", time.time(), version=version)
        self.set("app_workers_alive", 0)
        self.set("app_connection_capacity", 0)
        for name in SESSION_FAMILIES:
            self.set(name, 0)
        self._registry.register(self._lanes)
        self._registry.register(self._values)
        ProcessCollector(registry=self._registry)

    # --- updates -------------------------------------------------------------------------

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set the value of a gauge, or of a counter that is kept elsewhere."""
        family = _FAMILIES[name]
        self._values.values.setdefault(family.name, {})[tuple(labels.values())] = value

    def count(self, name: str, **labels: str) -> None:
        """Count one event."""
        counter = self._counters[name]
        (counter.labels(**labels) if labels else counter).inc()

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Observe one duration."""
        histogram = self._histograms[name]
        (histogram.labels(**labels) if labels else histogram).observe(seconds)

    def count_log_event(self, level: str) -> None:
        """Count one log event of this process."""
        self._log_events[level] = self._log_events.get(level, 0) + 1

    def count_dropped_line(self, output: str) -> None:
        """Count one log line of this process that was dropped."""
        self._log_lines_dropped[output] += 1

    def worker_ended(self, lane: str, cpu_seconds: float) -> None:
        """Add the CPU time of a worker that ended; its lane's counter continues from there."""
        used = self._values.used_before
        used[lane] = used.get(lane, 0.0) + cpu_seconds

    # --- export --------------------------------------------------------------------------

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        began = time.perf_counter()
        text = generate_latest(self._registry)
        self.set("app_metrics_collect_duration_seconds", time.perf_counter() - began)
        return text


class _ValueCollector(Collector):
    """Families whose values are set, or read from the kernel at a scrape."""

    def __init__(
        self, path: Path, running: Callable[[], Mapping[str, int]], lanes: WorkerCollector
    ) -> None:
        self._path = path
        self.values: dict[str, dict[tuple[str, ...], float]] = {}
        self.used_before: dict[str, float] = {}
        self._running = running
        self._lanes = lanes

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        read_now = self._machine() | self._workers()
        for family in SUPERVISOR_FAMILIES:
            values = read_now.get(family.name) or self.values.get(family.name)
            if values is not None:
                yield _metric(family, dict(values))
            elif family.name == "app_metrics_collect_duration_seconds":
                yield _metric(family, {(): 0.0})

    def _machine(self) -> dict[str, dict[tuple[str, ...], float]]:
        memory = system.memory()
        return {
            "app_memory_working_set_bytes": {(): memory.working_set},
            "app_memory_limit_bytes": {(): memory.limit},
            "app_metrics_files": {(): len(self._lanes.files())},
        }

    def _workers(self) -> dict[str, dict[tuple[str, ...], float]]:
        used: dict[tuple[str, ...], float] = {(n,): s for n, s in dict(self.used_before).items()}
        resident: dict[tuple[str, ...], float] = {}
        open_fds: dict[tuple[str, ...], float] = {}
        max_fds: dict[tuple[str, ...], float] = {}
        connections: dict[tuple[str, ...], float] = {}
        counted = live_values(self._path, "app_active_connections")
        for lane, pid in self._running().items():
            usage = system.process(pid)
            if usage is None:
                continue
            used[lane,] = used.get((lane,), 0.0) + usage.cpu_seconds
            resident[lane,] = usage.resident_bytes
            open_fds[lane,] = usage.open_fds
            max_fds[lane,] = usage.max_fds
            if lane in counted:
                connections[lane,] = counted[lane]
        return {
            "app_worker_connections": connections,
            "app_worker_cpu_seconds_total": used,
            "app_worker_resident_memory_bytes": resident,
            "app_worker_open_fds": open_fds,
            "app_worker_max_fds": max_fds,
        }


def _metric(family: Family, values: Mapping[tuple[str, ...], float]) -> Metric:
    is_counter = family.kind == "counter"
    metric = Metric(
        family.name.removesuffix("_total") if is_counter else family.name, family.help, family.kind
    )
    for labels, value in values.items():
        metric.add_sample(family.name, dict(zip(family.labels, labels, strict=True)), value)
    return metric


def _counter(family: Family, registry: CollectorRegistry) -> Counter:
    counter = Counter(family.name, family.help, list(family.labels), registry=registry)
    for name, values in family.labels.items():
        for value in values:
            counter.labels(**{name: value})
    return counter


def _histogram(family: Family, registry: CollectorRegistry) -> Histogram:
    histogram = Histogram(
        family.name, family.help, list(family.labels), buckets=family.buckets, registry=registry
    )
    for name, values in family.labels.items():
        for value in values:
            histogram.labels(**{name: value})
    return histogram
