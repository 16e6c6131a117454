"""The workers' families, read from real multiprocess files, some of them corrupt."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from cluster.metrics.catalogue import WORKER_FAMILIES
from cluster.metrics.multiprocess import WorkerCollector, live_sum
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
