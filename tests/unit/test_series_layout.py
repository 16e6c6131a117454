"""Files of metrics are merged as prometheus-client merges them, and read again when their keys change."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from cluster.metrics.catalogue import WORKER_FAMILIES, base_name
from cluster.metrics.multiprocess import WorkerCollector

CATALOGUE: Final = {base_name(family) for family in WORKER_FAMILIES}
MODES: Final = ("all", "liveall", "min", "livemin", "max", "livemax", "sum", "livesum",
                "mostrecent", "livemostrecent")  # fmt: skip
GAUGES: Final = tuple(f"gauge_{mode}" for mode in MODES)
LANES: Final = ("w0a", "w0b", "w1a", "w2a")
# Sums of eighths are exact, in whatever order they are added.
EIGHTHS: Final = st.integers(0, 1 << 20).map(lambda number: number / 8)
SIGNED: Final = st.integers(-(1 << 20), 1 << 20).map(lambda number: number / 8)

FAST: Final = settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


@dataclass
class Failing:
    """A collector over a directory, and how many files it found corrupt."""

    collector: WorkerCollector
    failures: list[None]

    def foreign(self) -> list[Metric]:
        """Return the families that are not in the catalogue."""
        return [metric for metric in self.collector.collect() if metric.name not in CATALOGUE]

    def text(self) -> str:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self.collector)
        return generate_latest(registry).decode()


def collector_of(folder: Path) -> Failing:
    failures: list[None] = []
    return Failing(WorkerCollector(folder, own={}, failed=lambda: failures.append(None)), failures)


def write(path: Path, entries: dict[str, tuple[float, float]]) -> None:
    file: Any = MmapedDict(str(path))
    for key, (value, timestamp) in entries.items():
        file.write_value(key, value, timestamp)
    file.close()


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@st.composite
def files(draw: st.DrawFn) -> dict[str, dict[str, tuple[float, float]]]:
    """Files of some lanes; their series have the same order, another order, or are fewer."""
    found = {}
    for kind in draw(
        st.lists(st.sampled_from(("counter", "histogram", "summary", *GAUGES)), unique=True)
    ):
        keys = keys_of(kind)
        for lane in draw(st.lists(st.sampled_from(LANES), unique=True, min_size=1)):
            order = draw(st.one_of(st.just(keys), st.permutations(keys)))
            values = SIGNED if kind.startswith("gauge") else EIGHTHS
            some = order[: draw(st.sampled_from((len(keys), len(keys), 2, 0)))]
            found[f"{kind}_{lane}.db"] = {key: (draw(values), draw(EIGHTHS)) for key in some}
    return found


def keys_of(kind: str) -> list[str]:
    family = f"foreign_{kind}"
    if kind == "histogram":
        return [
            mmap_key(family, f"{family}_sum", ["a"], ["x"], "Help."),
            *(
                mmap_key(family, f"{family}_bucket", ["a", "le"], ["x", bound], "Help.")
                for bound in ("0.5", "1.0", "10.0", "+Inf")
            ),
            mmap_key(family, f"{family}_sum", ["a"], ["y"], "Help."),
            mmap_key(family, f"{family}_bucket", ["a", "le"], ["y", "+Inf"], "Help."),
        ]
    return [
        mmap_key(family, family, [], [], "Help \\ with\nlines."),
        *(
            mmap_key(family, family, ["b", "a"], [value, 'é"\\'], "Help \\ with\nlines.")
            for value in ("x", "y", "z")
        ),
    ]


@FAST
@given(files())
def test_files_are_merged_as_prometheus_client_merges_them(tmp_path, found):
    empty(tmp_path)
    for name, entries in found.items():
        write(tmp_path / name, entries)
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    wanted = list(MultiProcessCollector.merge(paths, accumulate=True))
    ours = collector_of(tmp_path)
    for _ in range(2):  # parsed, then recognized
        assert ours.foreign() == wanted
    assert ours.failures == []


@FAST
@given(files(), files())
def test_a_file_whose_keys_changed_is_parsed_again(tmp_path, before, after):
    empty(tmp_path)
    ours = collector_of(tmp_path)
    for found in (before, after):
        for name, entries in found.items():
            (tmp_path / name).unlink(missing_ok=True)
            write(tmp_path / name, entries)
        paths = [str(path) for path in sorted(tmp_path.iterdir())]
        assert ours.foreign() == list(MultiProcessCollector.merge(paths, accumulate=True))


def test_a_key_that_is_damaged_after_it_was_read_is_seen(tmp_path):
    path = tmp_path / "counter_w0a.db"
    write(path, dict.fromkeys(keys_of("counter"), (1.0, 0.0)))
    ours = collector_of(tmp_path)
    assert ours.foreign()
    path.write_bytes(path.read_bytes().replace(b"foreign_counter", b'foreign"counter', 1))
    assert ours.foreign() == []
    assert len(ours.failures) == 1
    assert list(tmp_path.iterdir()) == [path.with_suffix(".corrupt")]


@pytest.mark.parametrize("place", ["label", "help"])
def test_a_key_that_is_no_text_is_corrupt(tmp_path, place):
    """JSON can escape half of a surrogate pair, which cannot be encoded."""
    labels = {"a": "\ud800"} if place == "label" else {}
    text = "\ud800" if place == "help" else "Help."
    write(tmp_path / "counter_w0a.db", {json.dumps(["x", "x", labels, text]): (1.0, 0.0)})
    write(tmp_path / "counter_w1a.db", dict.fromkeys(keys_of("counter"), (1.0, 0.0)))
    ours = collector_of(tmp_path)
    assert "foreign_counter 1.0" in ours.text()
    assert len(ours.failures) == 1


def test_two_files_that_give_a_family_two_kinds_do_not_stop_a_scrape(tmp_path):
    bound = mmap_key("foreign_histogram", "foreign_histogram", ["le"], ["much"], "Help.")
    write(tmp_path / "histogram_w0a.db", dict.fromkeys(keys_of("histogram"), (1.0, 0.0)))
    write(tmp_path / "summary_w0a.db", {bound: (1.0, 0.0)})
    ours = collector_of(tmp_path)
    assert [metric.name for metric in ours.foreign()] == ["foreign_histogram"]
    assert len(ours.failures) == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_good_file_is_kept_if_this_process_cannot_open_it_now(tmp_path, monkeypatch, number):
    """The worker would go on to write into the renamed file, and nobody would read it."""
    write(tmp_path / "counter_w0a.db", dict.fromkeys(keys_of("counter"), (1.0, 0.0)))
    ours, really_open = collector_of(tmp_path), os.open

    def fail(path: Any, *more: Any, **options: Any) -> int:
        if str(path).endswith(".db"):
            raise OSError(number, os.strerror(number))
        return really_open(path, *more, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fail)
        assert ours.foreign() == []
    assert len(ours.failures) == 1
    assert ours.foreign()


def test_a_file_is_read_whatever_many_others_came_before_it(tmp_path):
    ours = collector_of(tmp_path)
    for number in range(200):
        name = f"foreign{number}"
        write(tmp_path / "counter_w0a.db", {mmap_key(name, name, [], [], "Help."): (number, 0.0)})
        assert [sample.value for metric in ours.foreign() for sample in metric.samples] == [number]
        (tmp_path / "counter_w0a.db").unlink()


def test_a_file_larger_than_what_is_read_at_once_is_read(tmp_path):
    keys = [mmap_key("foreign", "foreign", ["a"], [str(n) * 20], "Help.") for n in range(2000)]
    write(tmp_path / "counter_w0a.db", dict.fromkeys(keys, (1.0, 0.0)))
    (metric,) = collector_of(tmp_path).foreign()
    assert len(metric.samples) == 2000
