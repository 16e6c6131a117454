"""AlertmanagerDown: Alertmanager hangs, so it cannot notify anyone, not even of this."""

from __future__ import annotations

from loadtest.drilling.drill import Component, Drill
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    injector.stop_process(injector.environment.pid_of("alertmanager"))


DRILL = Drill(
    alert="AlertmanagerDown",
    breaks="Alertmanager is stopped (SIGSTOP)",
    undo="Alertmanager continues (SIGCONT)",
    provoke=provoke,
    fires_seconds=165,
    resolves_seconds=45,
    proof="prometheus",
    affects=frozenset({Component.ALERTMANAGER}),
    needs=frozenset({Component.PROMETHEUS}),
    load=None,
)
