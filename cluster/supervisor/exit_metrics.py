"""Metrics about starts and exits of workers.

Rules
- Only this module observes a worker's shutdown: once, from signal to exit, even if the worker had
  to be killed. It also counts the outcome.
- While the whole program stops, no scrape will follow, so shutdowns go to the shutdown log. The
  next supervisor replays them after two scrapes by Prometheus itself have seen the zero.
"""

from __future__ import annotations

from typing import Final

from cluster import log
from cluster.children.child import Child
from cluster.metrics.catalogue import SHUTDOWN_PHASES
from cluster.metrics.supervisor_metrics import SupervisorMetrics
from cluster.supervisor.shutdown_log import SCRAPES_BEFORE_REPLAY, Shutdown, ShutdownLog

_PROMETHEUS: Final = "Prometheus/"


class ExitMetrics:
    """Counts worker starts, restarts and exits.

    Args:
        metrics: the metrics to update.
        shutdown_log: where shutdowns are written while the program stops.
    """

    def __init__(self, metrics: SupervisorMetrics, shutdown_log: ShutdownLog) -> None:
        self._metrics = metrics
        self._shutdown_log = shutdown_log
        self._unreplayed = shutdown_log.read()
        self._scrapes = 0
        self._observed_starts: set[Child] = set()
        self._log = log.get_logger()
        self.is_stopping = False

    def worker_changed(self, child: Child) -> None:
        """Observe the start or the exit of a worker; called on each change of its state."""
        if child.exited_at is not None:
            self._worker_ended(child)
        elif child.ready_at is not None and child not in self._observed_starts:
            self._observed_starts.add(child)
            seconds = child.ready_at - child.started_at
            self._metrics.observe("app_startup_duration_seconds", seconds)

    def worker_restarted(self, reason: str) -> None:
        """Count a restart."""
        self._metrics.count("app_worker_restarts_total", reason=reason)

    def _worker_ended(self, child: Child) -> None:
        self._observed_starts.discard(child)
        self._metrics.worker_ended(child.lane, child.exited.result().cpu_seconds)
        shutdown = Shutdown(child.outcome, child.shutdown_seconds(), child.shutdown_phases())
        if not self.is_stopping:
            self._observe(shutdown)
            return
        try:
            self._shutdown_log.append(shutdown)
        except OSError as error:
            self._log.error("shutdown_log_write_failed", error=str(error))

    def _observe(self, shutdown: Shutdown) -> None:
        self._metrics.count("app_worker_exits_total", outcome=shutdown.outcome)
        if shutdown.seconds is None:
            return
        self._metrics.observe("app_shutdown_duration_seconds", shutdown.seconds)
        for phase, seconds in shutdown.phases.items():
            if phase in SHUTDOWN_PHASES:
                name = "app_shutdown_phase_duration_seconds"
                self._metrics.observe(name, seconds, phase=phase)

    def scraped(self, user_agent: str) -> None:
        """Note a scrape; on Prometheus' second one, replay the shutdown log."""
        if not self._unreplayed or not user_agent.startswith(_PROMETHEUS):
            return
        self._scrapes += 1
        if self._scrapes < SCRAPES_BEFORE_REPLAY:
            return
        # Clear first: losing an observation is better than making it twice.
        self._shutdown_log.clear()
        for shutdown in self._unreplayed:
            self._observe(shutdown)
        self._log.info("shutdown_log_replayed", shutdowns=len(self._unreplayed))
        self._unreplayed = []
