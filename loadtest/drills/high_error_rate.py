"""HighErrorRate: the store is gone while clients publish."""

from __future__ import annotations

from loadtest.drill import MONITORING, SERVICE, Drill, Part
from loadtest.drilling.scene import Scene


def provoke(scene: Scene) -> None:
    stage = scene.stage

    def start_again() -> None:
        stage.start_store()

    scene.afterwards(start_again)
    stage.store.kill()


DRILL = Drill(
    alert="HighErrorRate",
    breaks="the store is killed (SIGKILL) while clients publish",
    mends="the store is started again with its data",
    provoke=provoke,
    fires_s=180,
    resolves_s=330,
    fixed_s=10,
    takes=frozenset({Part.STORE, Part.FAULTS, Part.LOG, Part.TRAFFIC}),
    uses=MONITORING | (SERVICE - {Part.STORE, Part.TRAFFIC}),
)
