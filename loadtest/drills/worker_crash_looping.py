"""WorkerCrashLooping: a worker is killed again and again."""

from __future__ import annotations

import os
import signal
from typing import Final

from loadtest.drill import MONITORING, SERVICE, Drill, Part
from loadtest.drilling.scene import Scene
from loadtest.drilling.stage import WORKERS, alive

_KILLS: Final = 4
_FEW: Final = 2
_HISTORY_S: Final = 120.0
_SECONDS: Final = 60.0


def provoke(scene: Scene) -> None:
    _kill(scene, _KILLS)


def below(scene: Scene) -> None:
    # increase() extrapolates to the whole window: of two kills in the first minute of a Prometheus' life
    # it makes two and a half.
    scene.wait(scene.seconds(_HISTORY_S))
    _kill(scene, _FEW)


def _kill(scene: Scene, times: int) -> None:
    stage = scene.stage
    for _ in range(times):
        # A worker that is killed before it came up failed to boot; three of these end the program.
        scene.wait_until(lambda: alive(stage) == WORKERS, _SECONDS, "all workers are ready")
        old = set(stage.workers(0))
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        _wait_for_another(scene, old)
    scene.wait_until(lambda: alive(stage) == WORKERS, _SECONDS, "all workers are ready")


def _wait_for_another(scene: Scene, old: set[int]) -> None:
    scene.wait_until(lambda: bool(set(scene.stage.workers(0)) - old), _SECONDS, "another worker")


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
    below=below,
    below_breaks="it was killed twice",
    below_s=60,
)
