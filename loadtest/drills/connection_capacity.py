"""ConnectionCapacity: nearly as many clients as fit."""

from __future__ import annotations

from loadtest.drill import MONITORING, SERVICE, Drill, Part
from loadtest.drilling.load import Load
from loadtest.drilling.rolling import roll
from loadtest.drilling.scene import Scene


def provoke(scene: Scene) -> None:
    stage = scene.stage

    def back() -> None:
        stage.write_config({})
        roll(scene)

    scene.afterwards(back)
    stage.write_config({"client": {"connection_limit": 10}})
    roll(scene)
    scene.add_load(Load("idle", users=12))


DRILL = Drill(
    alert="ConnectionCapacity",
    breaks="each of two workers takes ten clients at most, and 18 are connected",
    mends="twelve leave, and the limit is taken away",
    provoke=provoke,
    fires_s=345,
    resolves_s=60,
    fixed_s=40,
    takes=frozenset({Part.CONNECTIONS, Part.WORKERS, Part.VERSIONS, Part.REPLICAS}),
    uses=MONITORING | (SERVICE - {Part.CONNECTIONS, Part.WORKERS}),
)
