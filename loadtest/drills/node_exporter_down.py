"""NodeExporterDown: node_exporter hangs."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, Drill, Part
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    injector.stop_process(injector.environment.part("node_exporter"))


DRILL = Drill(
    alert="NodeExporterDown",
    breaks="node_exporter is stopped in its tracks (SIGSTOP)",
    undo="node_exporter goes on (SIGCONT)",
    provoke=provoke,
    fires_s=150,
    resolves_s=30,
    takes=frozenset({Part.NODE_EXPORTER}),
    uses=MONITORING,
    load=None,
)
