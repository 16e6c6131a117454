"""The workers' families, read from real multiprocess files, some of them corrupt."""

from __future__ import annotations

import math
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from cluster.metrics.catalogue import WORKER_FAMILIES
from cluster.metrics.multiprocess import WorkerCollector, live_sum, worker_values
from cluster.metrics.value_file import FILE_BYTES
from tests.harness.small_disk import fill, small_disk
from tests.integration.running import ROOT

WRITE = """
import sys
from cluster.metrics.counters import Counters
from cluster.metrics.worker_metrics import WorkerMetrics
metrics, counters = WorkerMetrics(sys.argv[1]), Counters()
counters.connections_opened += int(sys.argv[2])
counters.log_events["error"] += 1
metrics.set("app_active_connections", int(sys.argv[2]))
metrics.flush(counters)
"""


@pytest.fixture
def write(tmp_path):
    """Write the files of a lane, in a process of its own, as prometheus-client requires."""

    def run(lane: str, connections: int) -> None:
        environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
        command = [sys.executable, "-c", WRITE, lane, str(connections)]
        subprocess.run(command, env=environment, cwd=ROOT, check=True, timeout=60)

    return run


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, bytes]:
    """The files of a lane with two connections, by name."""
    folder = tmp_path_factory.mktemp("written")
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    command = [sys.executable, "-c", WRITE, "w0a", "2"]
    subprocess.run(command, env=environment, cwd=ROOT, check=True, timeout=60)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def lanes(tmp_path):
    failures: list[None] = []
    collector = WorkerCollector(
        tmp_path,
        own={"app_log_events_total": {"error": 4, "info": 2}},
        failed=lambda: failures.append(None),
    )
    collector.failures = failures  # type: ignore[attr-defined]
    return collector


def text_of(collector: WorkerCollector) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry).decode()


def test_lanes_are_summed(write, lanes):
    write("w0a", 2)
    write("w1b", 3)
    text = text_of(lanes)
    assert "app_active_connections 5.0" in text
    assert "app_connections_opened_total 5.0" in text


def test_a_lane_used_again_continues_its_counters(write, lanes):
    write("w0a", 2)
    write("w0a", 2)
    assert "app_connections_opened_total 4.0" in text_of(lanes)


def test_without_any_worker_all_families_except_minima_are_zero(lanes):
    text = text_of(lanes)
    for family in WORKER_FAMILIES:
        is_minimum = family.mode not in ("", "livesum")
        assert (f"# TYPE {family.name} {family.kind}" in text) is not is_minimum
    assert 'app_errors_total{type="broker"} 0.0' in text
    assert 'app_publish_to_delivery_seconds_bucket{le="+Inf"} 0.0' in text


def test_log_events_of_the_supervisor_are_added_to_the_workers(write, lanes):
    write("w0a", 1)
    text = text_of(lanes)
    assert 'app_log_events_total{level="error"} 5.0' in text
    assert 'app_log_events_total{level="info"} 2.0' in text


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xff\x00\x00garbage" * 50,
        b"\x10\x00\x00",
        b"\x28\x00\x00\x00\0\0\0\0" + b"\x04\0\0\0{{{{" + b"\0" * 24,
        b"\x40\x00\x00\x00\0\0\0\0" + b"\xff\0\0\0" + b"x" * 100,
        b"\x11\x008\xf6" + b"x" * 4092,
        b"\x40\x00\x00\x00\0\0\0\0" + b"\xec\xff\xff\xff" + b"x" * 100,
    ],
    ids=["garbage", "short", "no json", "beyond its end", "negative use", "negative length"],
)
def test_a_corrupt_file_is_renamed_and_the_others_are_read(write, lanes, tmp_path, content):
    write("w0a", 2)
    broken = tmp_path / "counter_w9a.db"
    broken.write_bytes(content)
    assert "app_connections_opened_total 2.0" in text_of(lanes)
    assert not broken.exists()
    assert len(lanes.failures) == 1
    assert "app_connections_opened_total 2.0" in text_of(lanes)
    assert len(lanes.failures) == 1


def occupy(path: Path, kind: str, good: Path) -> None:
    """Put something at the path that is no file of a worker."""
    content = good.read_bytes()
    match kind:
        case "a directory":
            path.mkdir()
            (path / "inner").touch()
        case "a link":
            path.symlink_to(good)
        case "a link to nothing":
            path.symlink_to("/nowhere")
        case "a link to itself":
            path.symlink_to(path)
        case "a pipe":
            os.mkfifo(path)
        case "a socket":
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(str(path))
        case "huge":
            path.touch()
            os.truncate(path, 1 << 40)
        case "cut short":
            path.write_bytes(content[:5000])
        case "not a number":
            path.write_bytes(content.replace(struct.pack("d", 2.0), struct.pack("d", math.nan)))
        case "negative":
            path.write_bytes(content.replace(struct.pack("d", 2.0), struct.pack("d", -2.0)))
        case "another kind":
            path.with_name("histogram_w9a.db").write_bytes(content)
        case "a wrong name":
            path.with_name("gauge.db").write_bytes(content)
        case "no name":
            path.with_name(".db").write_bytes(content)
        case "foreign text":
            path.write_bytes(content.replace(b"app_errors_total", b'app_errors"total'))
        case _:
            raise ValueError(kind)


@pytest.mark.parametrize(
    "kind",
    [
        "a directory",
        "a link",
        "a link to nothing",
        "a link to itself",
        "a pipe",
        "a socket",
        "huge",
        "cut short",
        "not a number",
        "negative",
        "another kind",
        "a wrong name",
        "no name",
        "foreign text",
    ],
)
def test_whatever_has_the_name_of_a_file_is_renamed_and_counted_once(written, tmp_path, kind):
    for name, content in written.items():
        (tmp_path / name).write_bytes(content)
    failures: list[None] = []
    collector = WorkerCollector(tmp_path, own={}, failed=lambda: failures.append(None))
    good = tmp_path / "counter_w0a.db"
    occupy(tmp_path / "counter_w9a.db", kind, good)
    for _ in range(2):
        assert "app_connections_opened_total 2.0" in text_of(collector)
        assert len(failures) == 1
    assert good.exists()
    assert live_sum(tmp_path, "app_active_connections") == 2


@settings(
    max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.data())
def test_a_file_with_flipped_bytes_or_a_hole_never_stops_a_scrape(written, tmp_path, data):
    for path in tmp_path.iterdir():
        path.unlink()
    for name, content in written.items():
        (tmp_path / name).write_bytes(content)
    name = data.draw(st.sampled_from(sorted(written)))
    content = bytearray(written[name])
    used = int.from_bytes(content[:4], "little")
    start = data.draw(st.integers(0, used))
    hole = data.draw(st.binary(min_size=1, max_size=64))
    content[start : start + len(hole)] = hole
    (tmp_path / name.replace("w0a", "w9a")).write_bytes(content)
    collector = WorkerCollector(tmp_path, own={}, failed=lambda: None)
    assert "app_connections_opened_total" in text_of(collector)
    live_sum(tmp_path, "app_active_connections")
    list(worker_values(tmp_path, ["app_active_connections"]))


def test_a_file_that_stays_empty_is_corrupt_whatever_the_clock_says(tmp_path, monkeypatch):
    failures: list[None] = []
    collector = WorkerCollector(tmp_path, own={}, failed=lambda: failures.append(None))
    for name, content in (("counter_w8a.db", b""), ("counter_w9a.db", b"\0" * FILE_BYTES)):
        (tmp_path / name).write_bytes(content)
    os.utime(tmp_path / "counter_w8a.db", (1.0, 1.0))
    text_of(collector)
    assert failures == []
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    text_of(collector)
    assert len(failures) == 2
    assert list(tmp_path.glob("*.db")) == []


@pytest.mark.parametrize("kind", ["a directory", "a link to nothing", "a pipe", "cut short"])
def test_a_worker_starts_with_new_files_in_place_of_damaged_ones(write, lanes, tmp_path, kind):
    write("w1a", 2)
    occupy(tmp_path / "counter_w9a.db", kind, tmp_path / "counter_w1a.db")
    (tmp_path / "histogram_w9a.db").write_bytes(b"\xff" * 1000)
    write("w9a", 3)
    assert "app_connections_opened_total 5.0" in text_of(lanes)
    assert lanes.failures == []


def test_the_series_of_the_catalogue_fit_twice_into_a_file(written):
    """A file that had to grow would not be reserved."""
    for name, content in written.items():
        assert len(content) == FILE_BYTES, name
        assert int.from_bytes(content[:4], "little") <= FILE_BYTES / 2, name


def test_a_worker_runs_without_files_if_the_disk_is_full(tmp_path):
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        fill(disk, leaves_bytes=3 * FILE_BYTES + 4096)
        program = f"{WRITE}\nprint(*metrics.failures, sep='\\n')"
        done = subprocess.run(
            [sys.executable, "-c", program, "w0a", "2"],
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(disk)},
            cwd=ROOT,
            check=True,
            timeout=60,
            capture_output=True,
            text=True,
        )
        assert "No space left on device" in done.stdout
        failures: list[None] = []
        collector = WorkerCollector(disk, own={}, failed=lambda: failures.append(None))
        assert "app_connections_opened_total" in text_of(collector)
        assert failures == []


def test_a_file_of_zeros_was_just_created_and_is_kept(lanes, tmp_path):
    fresh = tmp_path / "counter_w9a.db"
    fresh.write_bytes(b"\0" * 65536)
    text_of(lanes)
    assert fresh.exists()
    assert lanes.failures == []


@settings(
    max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_content_makes_a_scrape_fail_or_hang(lanes, tmp_path, content, used):
    for path in tmp_path.iterdir():
        path.unlink()
    (tmp_path / "counter_w9a.db").write_bytes(content)
    (tmp_path / "gauge_livesum_w9a.db").write_bytes(used.to_bytes(8, "little") + content)
    assert "app_connections_opened_total" in text_of(lanes)


def test_one_gauge_can_be_summed_without_reading_everything(write, tmp_path):
    write("w0a", 2)
    write("w1a", 5)
    assert live_sum(tmp_path, "app_active_connections") == 7
