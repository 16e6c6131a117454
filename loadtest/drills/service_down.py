"""ServiceDown: the whole application is paused, as `docker pause` does it."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    # The supervisor first, so that it does not replace the workers.
    injector.stop_process(injector.environment.cluster.pid, *injector.environment.workers())


DRILL = Drill(
    alert="ServiceDown",
    breaks="the supervisor and its workers are stopped (SIGSTOP)",
    undo="they continue (SIGCONT)",
    provoke=provoke,
    fires_seconds=75,
    resolves_seconds=60,
    fixed_seconds=5,
    affects=SERVICE - {Component.STORE}
    | {Component.REPLICAS, Component.METRIC_FILES, Component.SESSIONS, Component.VERSIONS},
    needs=MONITORING | {Component.STORE},
)
