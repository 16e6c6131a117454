"""EventLoopLag: workers are held up, again and again."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Final

from loadtest.drill import MONITORING, SERVICE, Drill, Part
from loadtest.drilling import mends
from loadtest.drilling.scene import Scene

# Far below the five seconds after which a worker is taken for hung and replaced.
_HELD_SECONDS: Final = 0.7
_FREE_SECONDS: Final = 0.8


def provoke(scene: Scene) -> None:
    workers = scene.stage.workers()
    for pid in workers:
        scene.note(mends.signalled(pid, signal.SIGCONT))

    def hold() -> None:
        _signal(workers, signal.SIGSTOP)
        try:
            scene.wait(_HELD_SECONDS)
        finally:
            _signal(workers, signal.SIGCONT)

    scene.pulse(hold, _FREE_SECONDS)


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


DRILL = Drill(
    alert="EventLoopLag",
    breaks="the workers are stopped for 0.7 s every 1.5 s",
    mends="they run on",
    provoke=provoke,
    fires_s=420,
    resolves_s=330,
    takes=frozenset({Part.WORKERS}),
    uses=MONITORING | (SERVICE - {Part.WORKERS}),
)
