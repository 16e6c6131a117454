"""MetricsFilesCorrupt: a metric file that is none, as a kill may leave it."""

from __future__ import annotations

from loadtest.drilling import undo
from loadtest.drilling.drill import MONITORING, Drill, Part
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    folder = injector.environment.worker_metrics_dir()
    injector.note(undo.removed_all(folder, "counter_drill*"))
    (folder / "counter_drill.db").write_bytes(b"")


DRILL = Drill(
    alert="MetricsFilesCorrupt",
    breaks="an empty file stands among the workers' metric files",
    undo="it is taken away, and what was put aside of it",
    provoke=provoke,
    fires_s=60,
    resolves_s=330,
    fixed_s=15,
    takes=frozenset({Part.METRIC_FILES}),
    uses=MONITORING | {Part.SUPERVISOR, Part.WORKERS},
    load=None,
)
