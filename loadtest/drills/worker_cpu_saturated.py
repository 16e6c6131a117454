"""WorkerCPUSaturated: a few clients keep one worker busy."""

from __future__ import annotations

import sys
from typing import Final

from loadtest.drill import MONITORING, SERVICE, Drill, Part
from loadtest.drilling.scene import Scene

_CLIENTS: Final = 3


def provoke(scene: Scene) -> None:
    port = str(scene.stage.worker_port_base)
    # Several, so that one of them always has something for the worker.
    for number in range(_CLIENTS):
        scene.run(f"flood-{number}", [sys.executable, "-m", "loadtest.drilling.flood", port])


DRILL = Drill(
    alert="WorkerCPUSaturated",
    breaks="three clients flood the worker of slot 0 with commands, as fast as it takes them",
    mends="they leave",
    provoke=provoke,
    fires_s=450,
    resolves_s=150,
    fixed_s=10,
    takes=frozenset({Part.MACHINE, Part.WORKERS}),
    uses=MONITORING | (SERVICE - {Part.WORKERS}),
)
