"""A rolling reload, from the signal until every worker is another one and the cluster is ready."""

from __future__ import annotations

import os
import signal
from typing import Final

from loadtest.drilling.scene import Scene
from loadtest.drilling.stage import WORKERS, alive

_SECONDS: Final = 90.0


def roll(scene: Scene) -> None:
    """Roll the workers.

    Raises:
        CannotProvoke: they are not all replaced within 90 s.
    """
    stage = scene.stage
    old = set(stage.workers())
    os.kill(stage.cluster.pid, signal.SIGHUP)

    def is_rolled() -> bool:
        now = set(stage.workers())
        return not now & old and len(now) == WORKERS and alive(stage) == WORKERS

    scene.wait_until(is_rolled, _SECONDS, "the workers are rolled")
