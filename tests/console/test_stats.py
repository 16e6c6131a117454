"""Current numbers, from the files that workers write."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.console.stats import ClusterState, Meter, WorkerState
from tests.architecture.tree import ROOT

WRITE = """
import sys
from cluster.metrics.counters import Counters
from cluster.metrics.worker_metrics import WorkerMetrics
metrics, counters = WorkerMetrics(sys.argv[1]), Counters()
counters.connections_opened += int(sys.argv[2])
metrics.set("app_active_connections", int(sys.argv[2]))
metrics.flush(counters)
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, int], None]:
    """A process writes the metrics of a worker with that many connections."""

    def run(lane: str, connections: int) -> None:
        environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
        command = [sys.executable, "-c", WRITE, lane, str(connections)]
        subprocess.run(command, env=environment, cwd=ROOT, check=True, timeout=60)

    return run


def worker(slot: int, lane: str, pid: int = 0) -> WorkerState:
    return WorkerState(slot, lane, pid, "ready", "", 5.0)


def state(*workers: WorkerState) -> ClusterState:
    return ClusterState(True, "", workers, sessions=7, capacity=100, up_seconds=60.0)


def test_connections_are_counted_by_worker_and_in_sum(tmp_path, write):
    write("w0a", 2)
    write("w1b", 3)
    now = Meter(tmp_path).read(state(worker(0, "w0a"), worker(1, "w1b")), 0.0)
    assert now["connections"] == 5
    assert [row["connections"] for row in now["workers"]] == [2, 3]
    assert (now["sessions"], now["capacity"]) == (7, 100)


def test_a_rate_is_the_difference_of_two_readings(tmp_path, write):
    meter = Meter(tmp_path)
    write("w0a", 2)
    assert meter.read(state(), 100.0)["opened_per_second"] == 0
    write("w0a", 8)
    assert meter.read(state(), 102.0)["opened_per_second"] == 4
    assert meter.read(state(), 110.0)["opened_per_second"] == 0


def test_a_counter_that_decreased_is_not_a_negative_rate(tmp_path, write):
    meter = Meter(tmp_path)
    write("w0a", 5)
    meter.read(state(), 0.0)
    (tmp_path / "counter_w0a.db").unlink()
    assert meter.read(state(), 1.0)["opened_per_second"] == 0


def test_the_use_of_a_process_is_measured_from_outside(tmp_path):
    meter = Meter(tmp_path)
    own = state(worker(0, "w0a", os.getpid()))
    first = meter.read(own, time.monotonic())["workers"][0]
    assert first["cpu"] is None
    busy_until = time.process_time() + 0.2
    while time.process_time() < busy_until:
        pass
    second = meter.read(own, time.monotonic())["workers"][0]
    assert 0 < second["cpu"] < 4
    assert second["resident_bytes"] > 1 << 20


def test_a_slot_without_a_process_has_a_row(tmp_path):
    row = Meter(tmp_path).read(state(worker(0, "w0a")), 0.0)["workers"][0]
    assert "cpu" not in row
    assert row["connections"] == 0


@pytest.mark.parametrize("damage", [b"", b"\xff" * 64, b"\x40\0\0\0" + bytes(60), b"ab"])
def test_a_broken_file_is_skipped(tmp_path, write, damage):
    write("w0a", 2)
    (tmp_path / "counter_w1a.db").write_bytes(damage)
    (tmp_path / "gauge_livesum_w1a.db").write_bytes(damage)
    assert Meter(tmp_path).read(state(), 0.0)["connections"] == 2
    assert (tmp_path / "counter_w1a.db").exists()
