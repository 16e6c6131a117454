"""ServiceDown: the whole application is paused, as `docker pause` does it."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, SERVICE, Drill, Part
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    # The supervisor first, so that it replaces no worker that does not answer.
    injector.stop_process(injector.environment.cluster.pid, *injector.environment.workers())


DRILL = Drill(
    alert="ServiceDown",
    breaks="the supervisor and its workers are stopped (SIGSTOP)",
    undo="they go on (SIGCONT)",
    provoke=provoke,
    fires_s=75,
    resolves_s=60,
    fixed_s=5,
    takes=SERVICE - {Part.STORE} | {Part.REPLICAS, Part.METRIC_FILES, Part.SESSIONS, Part.VERSIONS},
    uses=MONITORING | {Part.STORE},
)
