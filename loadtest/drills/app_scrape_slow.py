"""AppScrapeSlow: thousands of metric files, which every scrape reads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from prometheus_client.mmap_dict import MmapedDict

from loadtest.drilling import undo
from loadtest.drilling.drill import MONITORING, Component, Drill
from loadtest.drilling.faults.injector import CannotProvoke, FaultInjector

_STEP: Final = 150
_MOST: Final = 8000
# Between the threshold of one second and the time after which a scrape is given up, with room for
# a machine whose speed varies.
_SLOW_SECONDS: Final = 1.4
_FAST_SECONDS: Final = 2.2
_POLL_SECONDS: Final = 30.0
_PATTERN: Final = "histogram_drill*.db"


def provoke(injector: FaultInjector) -> None:
    folder = injector.environment.worker_metrics_dir()
    injector.note(undo.removed_all(folder, _PATTERN))
    files = _Files(folder)

    def keep_slow() -> None:
        """Add or remove files until a scrape is slow, but not too slow, on this machine."""
        scrape = injector.environment.prometheus.number(
            'max(scrape_duration_seconds{job="websocket-app"})'
        )
        if scrape is not None and scrape < _SLOW_SECONDS:
            files.add(_STEP)
        elif scrape is not None and scrape > _FAST_SECONDS:
            files.remove(_STEP // 2)

    files.add(4 * _STEP)
    injector.pulse(keep_slow, max(1.0, injector.seconds(_POLL_SECONDS) / 2))


class _Files:
    """Metric files of processes that never existed: every value is 0, so that no sum changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._first = folder / "histogram_drill0.db"
        self._count = 0
        shutil.copy(next(folder.glob("histogram_w*.db")), self._first)
        _empty(self._first)

    def add(self, count: int) -> None:
        if self._count + count > _MOST:
            raise CannotProvoke(f"{_MOST} more files do not make a scrape slow")
        for number in range(self._count + 1, self._count + count + 1):
            shutil.copy(self._first, self._folder / f"histogram_drill{number}.db")
        self._count += count

    def remove(self, count: int) -> None:
        for number in range(self._count, max(0, self._count - count), -1):
            (self._folder / f"histogram_drill{number}.db").unlink(missing_ok=True)
        self._count = max(0, self._count - count)


def _empty(path: Path) -> None:
    """Every value 0, so that no sum changes."""
    file = MmapedDict(str(path))
    for key, _, _, _ in list(MmapedDict.read_all_values_from_file(str(path))):
        file.write_value(key, 0.0, 0.0)
    file.close()


DRILL = Drill(
    alert="AppScrapeSlow",
    breaks="the metric files of thousands of processes are in the workers' directory",
    undo="they are removed",
    provoke=provoke,
    fires_seconds=345,
    resolves_seconds=60,
    fixed_seconds=60,
    affects=frozenset({Component.METRIC_FILES, Component.SUPERVISOR}),
    needs=MONITORING | {Component.WORKERS},
    load=None,
    # A scrape may not take longer than the scrape interval: in faster time it would time out first.
    compress_at_most=5,
)
