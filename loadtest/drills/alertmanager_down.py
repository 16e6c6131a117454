"""AlertmanagerDown: Alertmanager hangs, so nobody can be told, of this neither."""

from __future__ import annotations

from loadtest.drilling.drill import Drill, Part
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    injector.stop_process(injector.environment.part("alertmanager"))


DRILL = Drill(
    alert="AlertmanagerDown",
    breaks="Alertmanager is stopped (SIGSTOP)",
    undo="Alertmanager goes on (SIGCONT)",
    provoke=provoke,
    fires_s=165,
    resolves_s=45,
    proof="prometheus",
    takes=frozenset({Part.ALERTMANAGER}),
    uses=frozenset({Part.PROMETHEUS}),
    load=None,
)
