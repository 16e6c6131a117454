"""The workers' families, summed over the multiprocess files of all lanes.

Guarantees
- Whatever is in the directory never makes a scrape fail or wait: a corrupt file, or something else
  with such a name, is renamed to `*.corrupt` and counted. An empty file may have just been created;
  it is skipped, and renamed only if it stays empty.
- Counters, histograms and summed gauges exist at 0 with all label values, even before the first
  worker has written.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
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

from cluster.metrics.catalogue import WORKER_FAMILIES, Family
from cluster.metrics.value_file import HEADER_BYTES, entries, read_bounded

_EMPTY_FOR_SECONDS: Final = 5.0
_MOST_KEYS: Final = 10_000
_CORRUPT: Final = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    struct.error,
)
_FILE_NAME: Final = re.compile(r"(?P<kind>counter|histogram|summary|gauge(?=_[a-z]+_))_.+\.db")
_WORD: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


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
        self._known_keys: set[tuple[str, str]] = set()

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
            metric = found.pop(_base_name(family), None) or _zeros(family)
            if metric is not None:
                self._add_own(family, metric)
                yield metric
        yield from found.values()

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that the registry does not read the files to learn the names."""
        return []

    def _merged(self) -> Iterable[Metric]:
        paths = [path for path in self.files() if self._has_content(path)]
        try:
            return _merge(paths)
        except _CORRUPT:
            return _merge([path for path in paths if self._can_be_merged(path)])

    def _has_content(self, path: Path) -> bool:
        try:
            data = read_bounded(path)
            if not any(data[:HEADER_BYTES]):
                self._check_empty(path)
                return False
            self._empty_since.pop(path, None)
            self._check_content(path)
        except FileNotFoundError:
            return False
        except _CORRUPT:
            self._rename_corrupt(path)
            return False
        return True

    def _check_empty(self, path: Path) -> None:
        # A worker creates a file, then enlarges it, then writes its header.
        now = time.monotonic()
        if now - self._empty_since.setdefault(path, now) > _EMPTY_FOR_SECONDS:
            raise ValueError(f"{path} stays empty")

    def _check_content(self, path: Path) -> None:
        """Check the name and every entry.

        Raises:
            ValueError: if a worker cannot have written it.
        """
        name = _FILE_NAME.fullmatch(path.name)
        if name is None:
            raise ValueError(f"{path} has no name of a multiprocess file")
        for key, value in entries(path):
            if (name["kind"], key) not in self._known_keys:
                _check_key(key, name["kind"])
                if len(self._known_keys) < _MOST_KEYS:
                    self._known_keys.add((name["kind"], key))
            if not math.isfinite(value) or (value < 0 and name["kind"] != "gauge"):
                raise ValueError(f"{path} has the value {value}")

    def _can_be_merged(self, path: Path) -> bool:
        try:
            # A file that is read without an error alone is also merged without one.
            _merge([path])
        except FileNotFoundError:
            return False
        except _CORRUPT:
            self._rename_corrupt(path)
            return False
        return True

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


def _check_key(key: str, kind: str) -> None:
    """Check the key of a series.

    Raises:
        ValueError: if it is none, or that of a family of another kind.
    """
    document = json.loads(key)
    match document:
        case [str(family), str(name), dict(labels), str()] if all(
            isinstance(value, str) for value in labels.values()
        ):
            is_well_named = all(_WORD.fullmatch(word) for word in (family, name, *labels))
            if is_well_named and name.startswith(family) and _KINDS.get(family, kind) == kind:
                return
    raise ValueError(f"{key} is no key of a {kind}")


def _merge(paths: list[Path]) -> list[Metric]:
    merged: Any = MultiProcessCollector.merge([str(path) for path in paths], accumulate=True)
    return list(merged)


def _base_name(family: Family) -> str:
    """The name prometheus-client gives to a family: a counter has no suffix."""
    return family.name.removesuffix("_total") if family.kind == "counter" else family.name


_KINDS: Final = {_base_name(family): family.kind for family in WORKER_FAMILIES}


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
    metric = Metric(_base_name(family), family.help, family.kind)
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
    for file in path.glob("gauge_livesum_*.db"):
        with suppress(*_CORRUPT):
            values = [value for key, value in entries(file) if f'"{name}"' in key]
            if values:
                found[file.stem.rpartition("_")[2]] = sum(values)
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
    for file in (*path.glob("counter_*.db"), *path.glob("gauge_livesum_*.db")):
        lane = file.stem.rpartition("_")[2]
        with suppress(*_CORRUPT):
            for key, value in entries(file):
                name, labels = json.loads(key)[1:3]
                if name in names:
                    yield WorkerValue(lane, name, labels, value)
