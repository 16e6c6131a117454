"""Metrics at the admin port after starts, crashes, rolls and stops of workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.metrics.catalogue import SUPERVISOR_FAMILIES, WORKER_FAMILIES
from tests.integration.running import eventually

# Those of the admin port; the incident tracker has its own.
FAMILIES = (*WORKER_FAMILIES, *SUPERVISOR_FAMILIES)
PROMETHEUS = "Prometheus/2.42.0"


def test_a_scrape_carries_its_content_type_and_every_family_of_the_catalogue(a_cluster):
    cluster = a_cluster(metrics=True).ready()
    status, text, headers = cluster.get("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = {family.name for family in text_string_to_metric_families(text)}
    wanted = {family.name.removesuffix("_total") for family in FAMILIES}
    assert wanted - found == set()
    assert {"process_cpu_seconds", "process_open_fds"} <= found
    assert "_exits_created" not in text


def test_counters_exist_at_zero_with_all_their_labels_before_any_worker_has_written(a_cluster):
    cluster = a_cluster().ready()
    text = cluster.get("/metrics")[1]
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    for family in FAMILIES:
        if family.kind == "counter" and family.name != "app_log_events_total":
            for label, values in family.labels.items():
                for value in values:
                    assert samples[family.name, (label, value)] == 0


def test_session_counts_and_resource_usage_are_exported(a_cluster):
    cluster = a_cluster().ready()
    eventually(lambda: cluster.metric("app_sessions_tracked") == 3, "sessions are counted")
    assert cluster.metric("app_sessions_created_total") == 5
    limit, used = (
        cluster.metric("app_memory_limit_bytes"),
        cluster.metric("app_memory_working_set_bytes"),
    )
    assert 0 < used < limit <= psutil.virtual_memory().total
    assert cluster.metric("app_startup_duration_seconds_count") == 2
    pid = cluster.worker_pid(0)
    resident = cluster.metric('app_worker_resident_memory_bytes{worker="w0a"}')
    assert abs(resident - psutil.Process(pid).memory_info().rss) < 4 << 20
    assert cluster.metric('app_worker_open_fds{worker="w0a"}') >= 4
    assert (
        cluster.metric('app_worker_max_fds{worker="w0a"}')
        == psutil.Process(pid).rlimit(psutil.RLIMIT_NOFILE)[0]
    )


def test_an_empty_and_a_corrupt_file_do_not_fail_a_scrape_and_are_counted(a_cluster):
    cluster = a_cluster(metrics=True).ready()
    folder = _metrics_dir(cluster)
    empty, corrupt = folder / "counter_w9a.db", folder / "counter_w9b.db"
    empty.write_bytes(b"")
    corrupt.write_bytes(b"\xff\x0f\x00\x00garbage" * 100)
    status, text, _ = cluster.get("/metrics")
    assert status == 200
    assert "app_connections_opened_total 2.0" in text
    # One that was just made may be empty: it counts when it has stayed so for some seconds.
    eventually(
        lambda: cluster.metric("app_metrics_collect_errors_total") == 2, "both files are counted"
    )
    assert not empty.exists()
    assert corrupt.with_suffix(".corrupt").exists()


def test_an_empty_file_that_was_just_created_is_kept(a_cluster):
    cluster = a_cluster(metrics=True).ready()
    fresh = _metrics_dir(cluster) / "counter_w9a.db"
    fresh.write_bytes(b"")
    assert cluster.get("/metrics")[0] == 200
    assert fresh.exists()
    assert cluster.metric("app_metrics_collect_errors_total") == 0


def test_a_killed_worker_leaves_no_active_connections_and_its_counters_continue(a_cluster):
    cluster = a_cluster(metrics=True).ready()
    assert cluster.metric("app_active_connections") == 14
    os.kill(cluster.worker_pid(0), signal.SIGKILL)
    eventually(lambda: len(cluster.events("child_exited")) == 1, "it has ended")
    eventually(lambda: cluster.lane(0), "it is replaced")
    assert cluster.metric("app_active_connections") == 14
    assert cluster.metric("app_connections_opened_total") == 3
    assert cluster.metric('app_worker_cpu_seconds_total{worker="w0a"}') > 0


@pytest.mark.slow
def test_two_hundred_restarts_leave_as_many_files_as_one_roll(a_cluster):
    cluster = a_cluster(workers=4, metrics=True).ready()
    _roll(cluster, 1)
    files = cluster.metric("app_metrics_files")
    _roll(cluster, 50)
    assert cluster.metric('app_worker_restarts_total{reason="roll"}') == 204
    assert cluster.metric("app_metrics_files") == files
    assert cluster.metric("app_connections_opened_total") == 208
    assert cluster.metric("app_active_connections") == 28
    assert cluster.metric("app_metrics_collect_duration_seconds") < 0.5


def test_a_whole_stop_is_replayed_after_prometheus_has_seen_the_zero_twice(a_cluster):
    cluster = a_cluster().ready()
    assert cluster.stop() == 0
    assert (cluster.data_dir / "shutdowns.jsonl").exists()
    cluster.ready()
    count = "app_shutdown_duration_seconds_count"
    assert [cluster.metric(count, agent="curl/8") for _ in range(3)] == [0, 0, 0]
    assert [cluster.metric(count, agent=PROMETHEUS) for _ in range(2)] == [0, 0]
    assert cluster.metric(count, agent=PROMETHEUS) == 2
    assert cluster.metric('app_worker_exits_total{outcome="clean"}') == 2
    assert cluster.metric('app_shutdown_phase_duration_seconds_count{phase="clients"}') == 2
    assert not (cluster.data_dir / "shutdowns.jsonl").exists()


def _roll(cluster, times: int) -> None:
    for _ in range(times):
        done = len(cluster.events("operation_finished"))
        cluster.signal(signal.SIGHUP)
        eventually(lambda: len(cluster.events("operation_finished")) > done, "the roll is done")  # noqa: B023


def _metrics_dir(cluster) -> Path:
    environment = psutil.Process(cluster.worker_pid(0)).environ()
    return Path(environment["PROMETHEUS_MULTIPROC_DIR"])
