"""WorkerCPUSaturated: one client keeps one worker busy."""

from __future__ import annotations

import sys

from loadtest.drill import MONITORING, SERVICE, Drill, Part
from loadtest.drilling.scene import Scene


def provoke(scene: Scene) -> None:
    port = str(scene.stage.worker_port_base)
    scene.run("flood", [sys.executable, "-m", "loadtest.drilling.flood", port])


DRILL = Drill(
    alert="WorkerCPUSaturated",
    breaks="one client floods the worker of slot 0 with commands as fast as it takes them",
    mends="that client leaves",
    provoke=provoke,
    fires_s=450,
    resolves_s=150,
    fixed_s=10,
    takes=frozenset({Part.MACHINE, Part.WORKERS}),
    uses=MONITORING | (SERVICE - {Part.WORKERS}),
)
