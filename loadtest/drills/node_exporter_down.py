"""NodeExporterDown: node_exporter hangs."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, Component, Drill
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    injector.stop_process(injector.environment.pid_of("node_exporter"))


DRILL = Drill(
    alert="NodeExporterDown",
    breaks="node_exporter is stopped (SIGSTOP)",
    undo="node_exporter continues (SIGCONT)",
    provoke=provoke,
    fires_seconds=150,
    resolves_seconds=30,
    affects=frozenset({Component.NODE_EXPORTER}),
    needs=MONITORING,
    load=None,
)
