"""What happens to children, told to the metrics, or to the shutdown_log when nobody will scrape again.

Rules
- A worker's shutdown is observed here alone, once, from signal to exit, also of one that had to
  be killed; its outcome is counted.
- While the whole program stops, observations go to the shutdown_log instead. They are replayed after
  two scrapes by Prometheus itself have seen the zero.
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
    """The supervisor's bookkeeping.

    Args:
        metrics: where events are counted.
        shutdown_log: where they are kept while the program stops.
    """

    def __init__(self, metrics: SupervisorMetrics, shutdown_log: ShutdownLog) -> None:
        self._metrics = metrics
        self._shutdown_log = shutdown_log
        self._waiting = shutdown_log.read()
        self._scrapes = 0
        self._started: set[Child] = set()
        self._log = log.get_logger()
        self.is_ending = False

    def worker_changed(self, child: Child) -> None:
        """A worker reports another state, or has ended."""
        if child.exited_at is not None:
            self._worker_ended(child)
        elif child.ready_at is not None and child not in self._started:
            self._started.add(child)
            seconds = child.ready_at - child.started_at
            self._metrics.observe("app_startup_duration_seconds", seconds)

    def worker_restarted(self, reason: str) -> None:
        """A worker was started in place of another."""
        self._metrics.count("app_worker_restarts_total", reason=reason)

    def _worker_ended(self, child: Child) -> None:
        self._started.discard(child)
        self._metrics.worker_ended(child.lane, child.exited.result().cpu_seconds)
        shutdown = Shutdown(child.outcome, child.shutdown_seconds(), child.shutdown_phases())
        if not self.is_ending:
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
        """Somebody has read the metrics; after Prometheus' second time the shutdown_log is replayed."""
        if not self._waiting or not user_agent.startswith(_PROMETHEUS):
            return
        self._scrapes += 1
        if self._scrapes < SCRAPES_BEFORE_REPLAY:
            return
        # Forget first: to lose an observation is better than to make it twice.
        self._shutdown_log.clear()
        for shutdown in self._waiting:
            self._observe(shutdown)
        self._log.info("shutdown_log_replayed", shutdowns=len(self._waiting))
        self._waiting = []
