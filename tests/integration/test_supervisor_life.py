"""A cluster starts, serves, and ends without leaving anything behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.harness.capabilities import without_resource_capability
from tests.harness.processes import cpu_seconds
from tests.integration.running import ROOT, eventually


def test_a_cluster_gets_ready_and_every_slot_answers(a_cluster):
    cluster = a_cluster(workers=3).ready()
    assert [cluster.lane(n) for n in range(3)] == ["w0a", "w1a", "w2a"]
    assert cluster.get("/health")[0] == 200
    assert cluster.metric("app_workers_alive") == 3


def test_a_stop_leaves_no_process_and_no_temporary_file(a_cluster):
    cluster = a_cluster(embedded=True, nginx=True).ready()
    metrics = [Path(p) for p in _metrics_dirs(cluster)]
    assert cluster.stop() == 0
    eventually(lambda: not cluster.survivors(), "all processes have ended")
    assert not (cluster.data_dir / "run").exists()
    assert metrics
    assert not any(path.exists() for path in metrics)


def test_no_secret_is_in_the_arguments_or_the_environment_of_a_child(a_cluster):
    environment = {"WS_CLUSTER_ADMIN__KEY": "s3cret"}
    options = {"http_api.key": "s3cret", "client.token.hmac_secret_key": "s3cret"}
    cluster = a_cluster(embedded=True, nginx=True, environment=environment, options=options).ready()
    for pid in cluster.family:
        process = psutil.Process(pid)
        assert "s3cret" not in " ".join([*process.cmdline(), *process.environ().values()])


def test_ctrl_c_reaches_only_the_supervisor_which_stops_cleanly(a_cluster):
    cluster = a_cluster().ready()
    groups = {os.getpgid(pid) for pid in cluster.family}
    assert os.getpgid(cluster.process.pid) not in groups
    assert {os.getsid(pid) for pid in cluster.family} == set(cluster.family)
    cluster.signal(signal.SIGINT)
    assert cluster.wait() == 0
    assert [e["code"] for e in cluster.events("child_exited")] == [0, 0]


def test_kill_9_of_the_supervisor_ends_all_children(a_cluster):
    cluster = a_cluster(embedded=True, nginx=True).ready()
    assert len(cluster.family) >= 5
    cluster.signal(signal.SIGKILL)
    cluster.wait()
    eventually(lambda: not cluster.survivors(), "all processes have ended", 10)


def test_after_kill_9_the_same_data_directory_can_be_used_at_once(a_cluster):
    cluster = a_cluster(embedded=True, nginx=True).ready()
    cluster.signal(signal.SIGKILL)
    cluster.wait()
    cluster.ready()
    assert cluster.get("/ready")[0] == 200


def test_while_it_drains_ready_is_503_with_the_reason(a_cluster):
    cluster = a_cluster()
    cluster.mode.write_text("slow")
    cluster.ready()
    cluster.signal(signal.SIGTERM)
    status, body, _ = eventually(
        lambda: (answer := cluster.get("/ready"))[0] == 503 and answer, "it is not ready"
    )
    assert (status, '"draining"' in body) == (503, True)
    assert cluster.get("/health")[0] == 200
    assert cluster.wait() == 0


def test_a_stop_during_the_start_is_clean(a_cluster):
    cluster = a_cluster(embedded=True, nginx=True)
    cluster.mode.write_text("mute")
    cluster.start()
    eventually(lambda: len(cluster.events("child_started")) == 4, "all children are started")
    assert cluster.stop() == 0
    eventually(lambda: not cluster.survivors(), "all processes have ended")


def test_signals_during_a_stop_do_not_prevent_it(a_cluster):
    cluster = a_cluster().ready()
    cluster.signal(signal.SIGTERM)
    process = psutil.Process(cluster.process.pid)
    while cluster.process.poll() is None:
        for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGHUP):
            cluster.signal(number)
        # Only poll() waits for the process, so its status can be read until poll() returns.
        assert process.status() != psutil.STATUS_STOPPED
        # A pause, or the process does nothing but handle signals.
        with suppress(subprocess.TimeoutExpired):
            cluster.process.wait(0.002)
    assert cluster.process.poll() == 0


def test_a_second_term_shortens_the_grace(a_cluster):
    cluster = a_cluster()
    cluster.mode.write_text("stubborn")
    cluster.ready()
    began = time.monotonic()
    cluster.signal(signal.SIGTERM)
    eventually(lambda: cluster.events("stop_started"), "it stops")
    cluster.signal(signal.SIGTERM)
    assert cluster.wait() == 0
    assert time.monotonic() - began < 10
    assert not cluster.survivors()


def test_a_worker_that_ignores_term_is_killed_after_the_grace(a_cluster):
    cluster = a_cluster(
        options={
            "shutdown.stop_grace_period": 1.0,
            "shutdown.timeout": 0.5,
            "shutdown.drain_window": 0.1,
        }
    )
    cluster.mode.write_text("stubborn")
    cluster.ready()
    assert cluster.stop() == 0
    assert {e["code"] for e in cluster.events("child_exited")} == {-signal.SIGKILL}


@pytest.mark.alone
def test_four_real_programs_are_ready_after_three_seconds_of_two_cores(a_cluster):
    cluster = a_cluster(workers=4, embedded=True, nginx=True)
    began = time.monotonic()
    cluster.ready()
    # As in test_ws_cluster_up.py: the work is bounded, and the wait only generously.
    assert cpu_seconds(cluster.process.pid) < 6
    assert time.monotonic() - began < 30


def test_all_ports_in_use_are_reported_at_once(a_cluster):
    cluster = a_cluster()
    with (
        socket.create_server(("127.0.0.1", cluster.admin)),
        socket.create_server(("127.0.0.1", cluster.base + 1)),
    ):
        cluster.start()
        assert cluster.wait() == 78
    errors = cluster.errors()
    assert f"server.admin_port: {cluster.admin} is not allowed" in errors
    assert f"port {cluster.base + 1} of 127.0.0.1 is in use" in errors


def test_a_data_directory_in_use_is_reported(a_cluster):
    first = a_cluster().ready()
    second = a_cluster(options={"server.data_dir": str(first.data_dir)})
    second.start()
    assert second.wait(60) == 78
    assert "another cluster uses it" in second.errors()


def test_a_data_directory_that_cannot_be_created_is_reported(a_cluster, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    cluster = a_cluster(options={"server.data_dir": str(blocker / "data")})
    cluster.start()
    assert cluster.wait() == 78
    assert "give a directory that can be written" in cluster.errors()


def test_a_low_soft_file_limit_is_raised_and_a_low_hard_one_is_logged(a_cluster):
    cluster = a_cluster()
    given = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2000))"
    # The limit is set by a parent, as a shell's ulimit would.
    script = f"{given}; import os, sys; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    wrapper = cluster.folder / "limited.py"
    wrapper.write_text(script)
    cluster.program_prefix = [*without_resource_capability(), sys.executable, str(wrapper)]
    cluster.ready()
    event = eventually(lambda: cluster.events("file_limit_found_low"), "the limit is logged")[0]
    assert event["file_limit"] == 2000
    assert event["connections_that_fit"] == 2 * (2000 - 64)
    assert psutil.Process(cluster.process.pid).rlimit(psutil.RLIMIT_NOFILE) == (2000, 2000)


def test_a_missing_program_is_reported_with_what_to_do():
    code = (
        "import os; os.environ['PATH'] = '/nonexistent'\n"
        "from cluster.children import binaries\n"
        "binaries._valkey_of_wheel = binaries._nginx_of_wheel = lambda: (_ for _ in ()).throw(ImportError())\n"
        "from cluster.cli import main\n"
        "raise SystemExit(main(['up', '--development', '--data-dir', '/nonexistent/x']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 69
    assert "--no-nginx" in done.stderr


def _metrics_dirs(cluster) -> list[str]:
    found = set()
    for pid in cluster.family:
        value = psutil.Process(pid).environ().get("PROMETHEUS_MULTIPROC_DIR")
        if value:
            found.add(value)
    return sorted(found)
