"""MetricsFilesCorrupt: a metric file that is none, as a kill may leave it."""

from __future__ import annotations

from loadtest.drill import MONITORING, Drill, Part
from loadtest.drilling import mends
from loadtest.drilling.scene import Scene


def provoke(scene: Scene) -> None:
    folder = scene.stage.worker_metrics_dir()
    scene.note(mends.removed_all(folder, "counter_drill*"))
    (folder / "counter_drill.db").write_bytes(b"")


DRILL = Drill(
    alert="MetricsFilesCorrupt",
    breaks="an empty file stands among the workers' metric files",
    mends="it is taken away, and what was put aside of it",
    provoke=provoke,
    fires_s=60,
    resolves_s=330,
    fixed_s=15,
    takes=frozenset({Part.METRIC_FILES}),
    uses=MONITORING | {Part.SUPERVISOR, Part.WORKERS},
    load=None,
)
