"""WorkerCrashLooping: a worker is killed again and again."""

from __future__ import annotations

import os
import signal
from typing import Final

from loadtest.drill import MONITORING, SERVICE, Drill, Part
from loadtest.drilling.scene import Scene

_KILLS: Final = 4
_SECONDS: Final = 60.0


def provoke(scene: Scene) -> None:
    for _ in range(_KILLS):
        old = _workers(scene, set())
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        _workers(scene, old)
        scene.wait(1.0)


def _workers(scene: Scene, gone: set[int]) -> set[int]:
    """The slot's workers, others than these; waited for."""
    scene.wait_until(
        lambda: bool(set(scene.stage.workers(0)) - gone), _SECONDS, "a worker of slot 0"
    )
    return set(scene.stage.workers(0)) - gone


DRILL = Drill(
    alert="WorkerCrashLooping",
    breaks="the worker of slot 0 is killed (SIGKILL) four times",
    mends="nobody kills it any more",
    provoke=provoke,
    fires_s=60,
    resolves_s=930,
    fixed_s=30,
    takes=frozenset({Part.WORKERS, Part.LOG}),
    uses=MONITORING | (SERVICE - {Part.WORKERS}),
)
