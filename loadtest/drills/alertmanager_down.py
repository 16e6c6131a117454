"""AlertmanagerDown: Alertmanager hangs, so nobody can be told, of this neither."""

from __future__ import annotations

from loadtest.drill import Drill, Part
from loadtest.drilling.scene import Scene


def provoke(scene: Scene) -> None:
    scene.stop_process(scene.stage.part("alertmanager"))


DRILL = Drill(
    alert="AlertmanagerDown",
    breaks="Alertmanager is stopped (SIGSTOP)",
    mends="Alertmanager goes on (SIGCONT)",
    provoke=provoke,
    fires_s=165,
    resolves_s=45,
    proof="prometheus",
    takes=frozenset({Part.ALERTMANAGER}),
    uses=frozenset({Part.PROMETHEUS}),
    load=None,
)
