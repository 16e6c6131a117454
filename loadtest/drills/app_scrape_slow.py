"""AppScrapeSlow: thousands of metric files, which every scrape reads."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Final

from prometheus_client.mmap_dict import MmapedDict

from cluster.monitor.asking import Service
from loadtest.drill import MONITORING, Drill, Part
from loadtest.drilling import mends
from loadtest.drilling.scene import CannotProvoke, Scene

_STEP: Final = 200
_MOST: Final = 6000
_SLOW_SECONDS: Final = 1.5
_PATTERN: Final = "histogram_drill*.db"


def provoke(scene: Scene) -> None:
    folder = scene.stage.worker_metrics_dir()
    scene.note(mends.removed_all(folder, _PATTERN))
    door = Service("the cluster", scene.stage.addresses.admin)
    first = folder / "histogram_drill0.db"
    shutil.copy(next(folder.glob("histogram_w*.db")), first)
    _empty(first)
    for number in range(1, _MOST + 1):
        shutil.copy(first, folder / f"histogram_drill{number}.db")
        if number % _STEP == 0 and _scrape_seconds(door) > _SLOW_SECONDS:
            return
        if scene.is_over:
            return
    raise CannotProvoke(f"{_MOST} files more do not make a scrape slower than {_SLOW_SECONDS} s")


def _empty(path: Path) -> None:
    """Every value 0, so that no sum changes."""
    file = MmapedDict(str(path))
    for key, _, _, _ in list(MmapedDict.read_all_values_from_file(str(path))):
        file.write_value(key, 0.0, 0.0)
    file.close()


def _scrape_seconds(door: Service) -> float:
    began = time.monotonic()
    door.text("/metrics")
    return time.monotonic() - began


DRILL = Drill(
    alert="AppScrapeSlow",
    breaks="the metric files of thousands of processes lie in the workers' directory",
    mends="they are removed",
    provoke=provoke,
    fires_s=345,
    resolves_s=60,
    fixed_s=60,
    takes=frozenset({Part.METRIC_FILES, Part.SUPERVISOR}),
    uses=MONITORING | {Part.WORKERS},
    load=None,
    # A scrape may take no longer than the time between two: faster than this, it is given up first.
    compress_at_most=5,
)
