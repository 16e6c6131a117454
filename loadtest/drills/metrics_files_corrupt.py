"""MetricsFilesCorrupt: a metric file that cannot be read, as a kill may leave it."""

from __future__ import annotations

from loadtest.drilling import undo
from loadtest.drilling.drill import MONITORING, Component, Drill
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    folder = injector.environment.worker_metrics_dir()
    injector.note(undo.removed_all(folder, "counter_drill*"))
    (folder / "counter_drill.db").write_bytes(b"")


DRILL = Drill(
    alert="MetricsFilesCorrupt",
    breaks="an empty file is among the workers' metric files",
    undo="the file is removed, and the copy that was set aside",
    provoke=provoke,
    fires_seconds=60,
    resolves_seconds=330,
    fixed_seconds=15,
    affects=frozenset({Component.METRIC_FILES}),
    needs=MONITORING | {Component.SUPERVISOR, Component.WORKERS},
    load=None,
)
