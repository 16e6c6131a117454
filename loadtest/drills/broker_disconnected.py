"""BrokerDisconnected: the store hangs."""

from __future__ import annotations

from loadtest.drill import MONITORING, SERVICE, Drill, Part
from loadtest.drilling.scene import Scene


def provoke(scene: Scene) -> None:
    scene.stop_process(scene.stage.store.pid)


DRILL = Drill(
    alert="BrokerDisconnected",
    breaks="the store is paused (SIGSTOP): connections stand and nothing answers",
    mends="the store goes on (SIGCONT)",
    provoke=provoke,
    fires_s=60,
    resolves_s=45,
    fixed_s=20,
    takes=frozenset({Part.STORE, Part.FAULTS, Part.LOG, Part.TRAFFIC}),
    uses=MONITORING | (SERVICE - {Part.STORE, Part.TRAFFIC}),
    is_acknowledged=True,
)
