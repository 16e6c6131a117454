"""ServiceDown: the whole application is paused, as `docker pause` does it."""

from __future__ import annotations

from loadtest.drill import MONITORING, SERVICE, Drill, Part
from loadtest.drilling.scene import Scene


def provoke(scene: Scene) -> None:
    # The supervisor first, so that it replaces no worker that does not answer.
    scene.stop_process(scene.stage.cluster.pid, *scene.stage.workers())


DRILL = Drill(
    alert="ServiceDown",
    breaks="the supervisor and its workers are stopped (SIGSTOP)",
    mends="they go on (SIGCONT)",
    provoke=provoke,
    fires_s=75,
    resolves_s=60,
    fixed_s=5,
    takes=SERVICE - {Part.STORE} | {Part.REPLICAS, Part.METRIC_FILES, Part.SESSIONS, Part.VERSIONS},
    uses=MONITORING | {Part.STORE},
)
