"""NodeExporterDown: node_exporter hangs."""

from __future__ import annotations

from loadtest.drill import MONITORING, Drill, Part
from loadtest.drilling.scene import Scene


def provoke(scene: Scene) -> None:
    scene.stop_process(scene.stage.part("node_exporter"))


DRILL = Drill(
    alert="NodeExporterDown",
    breaks="node_exporter is stopped in its tracks (SIGSTOP)",
    mends="node_exporter goes on (SIGCONT)",
    provoke=provoke,
    fires_s=150,
    resolves_s=30,
    takes=frozenset({Part.NODE_EXPORTER}),
    uses=MONITORING,
    load=None,
)
