"""The workers' families, summed over the multiprocess files of all lanes.

Guarantees
- Whatever is in the directory never makes a scrape fail or wait: a corrupt file, or something else
  with such a name, is renamed to `*.corrupt` and counted. An empty file may have just been created;
  it is skipped, and renamed only if it stays empty.
- Counters, histograms and summed gauges exist at 0 with all label values, even before the first
  worker has written.
"""

from __future__ import annotations

import errno
import itertools
import operator
import os
import struct
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from cluster.metrics.catalogue import WORKER_FAMILIES, Family, base_name
from cluster.metrics.series_layout import FileValues, LayoutCache, Series

_EMPTY_FOR_SECONDS: Final = 5.0
_CORRUPT: Final = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    struct.error,
)
# Of this process or machine: they say nothing about the file.
_NOTHING_LEFT: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
#: How the values of a series are combined; gauges in other modes are not, each lane has its own.
_COMBINE: Final[Mapping[tuple[str, str], Callable[[float, float], float]]] = {
    **{(kind, ""): operator.add for kind in ("counter", "histogram", "summary")},
    **{("gauge", mode): operator.add for mode in ("sum", "livesum")},
    **{("gauge", mode): min for mode in ("min", "livemin")},
    **{("gauge", mode): max for mode in ("max", "livemax")},
}
_LAYOUTS: Final = LayoutCache()


class WorkerCollector(Collector):
    """Collects the families of the workers.

    Args:
        path: the directory of the multiprocess files.
        own: this process's own counts, which are added to the workers': by family, then by the
            value of its only label.
        failed: called for every file that was renamed because it is corrupt.
    """

    def __init__(
        self,
        path: Path,
        *,
        own: Mapping[str, Mapping[str, int]],
        failed: Callable[[], None],
    ) -> None:
        self._path = path
        self._own = own
        self._failed = failed
        self._empty_since: dict[Path, float] = {}

    def files(self) -> list[Path]:
        """Return the multiprocess files, without the corrupt ones."""
        try:
            names = sorted(os.listdir(self._path))  # noqa: PTH208 - only the names are needed
        except OSError:
            self._failed()
            return []
        return [self._path / name for name in names if name.endswith(".db")]

    def collect(self) -> Iterable[Metric]:
        """Yield every family of the catalogue in its order, then all others."""
        found = {metric.name: metric for metric in self._merged()}
        for family in WORKER_FAMILIES:
            metric = found.pop(base_name(family), None) or _zeros(family)
            if metric is not None:
                self._add_own(family, metric)
                yield metric
        yield from found.values()

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that the registry does not read the files to learn the names."""
        return []

    def _merged(self) -> Iterable[Metric]:
        return _merge([found for path in self.files() if (found := self._read(path)) is not None])

    def _read(self, path: Path) -> FileValues | None:
        try:
            found = _LAYOUTS.read(path)
            if found is None:
                self._check_empty(path)
            else:
                self._empty_since.pop(path, None)
        except FileNotFoundError:
            return None
        except _CORRUPT as error:
            if isinstance(error, OSError) and error.errno in _NOTHING_LEFT:
                self._failed()
            else:
                self._rename_corrupt(path)
            return None
        return found

    def _check_empty(self, path: Path) -> None:
        # A worker creates a file, then enlarges it, then writes its header.
        now = time.monotonic()
        if now - self._empty_since.setdefault(path, now) > _EMPTY_FOR_SECONDS:
            raise ValueError(f"{path} stays empty")

    def _rename_corrupt(self, path: Path) -> None:
        self._failed()
        with suppress(OSError):
            path.replace(path.with_suffix(".corrupt"))

    def _add_own(self, family: Family, metric: Metric) -> None:
        if family.name not in self._own:
            return
        (label,) = family.labels
        own = dict(self._own[family.name])
        metric.samples = [
            sample._replace(value=sample.value + own.pop(sample.labels.get(label, ""), 0))
            for sample in metric.samples
        ]
        for value, count in own.items():
            metric.add_sample(family.name, {label: value}, count)


def _merge(files: Iterable[FileValues]) -> list[Metric]:
    """Merge files as prometheus-client does, in their order.

    Files with the same series that stand together are combined first, a whole file at a time; the
    rest is prometheus-client's.
    """
    merged: dict[str, Any] = {}
    for (kind, mode, lane, _), group in itertools.groupby(files, key=_mergeable):
        first, *others = group
        values: Iterable[float] = first.values
        for other in others:
            values = map(_COMBINE[kind, mode], values, other.values)
        for series, value, timestamp in zip(first.series, values, first.timestamps, strict=True):
            if series.family not in merged:
                merged[series.family] = Metric(series.family, series.help, kind)
            metric = merged[series.family]
            if kind == "gauge":
                metric._multiprocess_mode = mode
                labels = (*series.sorted_labels, ("pid", lane))
                metric.add_sample(series.name, labels, value, timestamp)
            else:
                metric.add_sample(series.name, series.sorted_labels, value)
    collector: Any = MultiProcessCollector
    return list(collector._accumulate_metrics(merged, accumulate=True))


def _mergeable(file: FileValues) -> tuple[str, str, str, tuple[Series, ...]]:
    """Return kind, mode, lane and series: what files that are combined have in common."""
    mode, lane = "", ""
    if file.kind == "gauge":
        _, mode, lane, *_ = file.name.removesuffix(".db").split("_")
        if ("gauge", mode) in _COMBINE:
            lane = ""
    return file.kind, mode, lane, file.series


def _label_sets(family: Family) -> list[dict[str, str]]:
    names = list(family.labels)
    return [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*family.labels.values())
    ]


def _zeros(family: Family) -> Metric | None:
    """A family that no worker has written, at 0; None for gauges that have no value without workers."""
    if family.kind == "gauge" and family.mode != "livesum":
        return None
    metric = Metric(base_name(family), family.help, family.kind)
    for labels in _label_sets(family):
        if family.kind == "histogram":
            for bound in (*family.buckets, float("inf")):
                edge: str = floatToGoString(bound)
                metric.add_sample(f"{family.name}_bucket", {**labels, "le": edge}, 0.0)
            metric.add_sample(f"{family.name}_sum", labels, 0.0)
            metric.add_sample(f"{family.name}_count", labels, 0.0)
        else:
            metric.add_sample(family.name, labels, 0.0)
    return metric


def live_sum(path: Path, name: str) -> float:
    """Return one summed gauge for the status line."""
    return sum(live_values(path, name).values())


def live_values(path: Path, name: str) -> dict[str, float]:
    """Return one summed gauge per lane; reads only the files that contain it."""
    found: dict[str, float] = {}
    for lane, file in _values_of_lanes(path, "gauge_livesum_"):
        values = [v for s, v in zip(file.series, file.values, strict=True) if s.name == name]
        if values:
            found[lane] = sum(values)
    return found


class WorkerValue(NamedTuple):
    """One series of one lane."""

    lane: str
    name: str
    labels: Mapping[str, str]
    value: float


def worker_values(path: Path, names: Collection[str]) -> Iterator[WorkerValue]:
    """Yield the counters and summed gauges with these names, per lane.

    A corrupt file is skipped; only a scrape renames it.
    """
    for prefix in ("counter_", "gauge_livesum_"):
        for lane, file in _values_of_lanes(path, prefix):
            for series, value in zip(file.series, file.values, strict=True):
                if series.name in names:
                    yield WorkerValue(lane, series.name, series.labels, value)


def _values_of_lanes(path: Path, prefix: str) -> Iterator[tuple[str, FileValues]]:
    for file in path.glob(f"{prefix}*.db"):
        with suppress(*_CORRUPT):
            found = _LAYOUTS.read(file)
            if found is not None:
                yield file.stem.rpartition("_")[2], found
