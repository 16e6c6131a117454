"""FileDescriptorsExhausting: a worker has nearly as many files open as it may."""

from __future__ import annotations

import resource
from typing import Final

import psutil

from loadtest.drill import MONITORING, SERVICE, Drill, Part
from loadtest.drilling import mends
from loadtest.drilling.load import Load
from loadtest.drilling.scene import CannotProvoke, Scene

_CLIENTS: Final = 45
_SPARE: Final = 8


def provoke(scene: Scene) -> None:
    stage = scene.stage
    workers = stage.workers(0)
    if not workers:
        raise CannotProvoke("no worker of slot 0 runs")
    pid = workers[0]
    scene.add_load(Load("idle", users=_CLIENTS), host=stage.worker_url(0))
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    scene.note(mends.file_limit(pid, soft, hard))
    few = psutil.Process(pid).num_fds() + _SPARE
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, hard))


DRILL = Drill(
    alert="FileDescriptorsExhausting",
    breaks="a worker holds 45 clients, and may open eight files more",
    mends="the limit is lifted, and the clients leave",
    provoke=provoke,
    fires_s=345,
    resolves_s=45,
    fixed_s=15,
    takes=frozenset({Part.WORKERS, Part.CONNECTIONS}),
    uses=MONITORING | (SERVICE - {Part.WORKERS, Part.CONNECTIONS}),
    load=None,
)
