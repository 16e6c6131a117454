"""A child that ends is started again, at a pace; one that cannot boot ends the program."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import time

import pytest

from tests.integration.running import eventually


def test_a_killed_worker_is_replaced_and_counted(a_cluster):
    cluster = a_cluster().ready()
    os.kill(cluster.worker_pid(0), signal.SIGKILL)
    eventually(lambda: cluster.lane(0), "the slot serves again")
    assert cluster.metric('app_worker_restarts_total{reason="crash"}') == 1
    assert cluster.metric('app_worker_exits_total{outcome="crashed"}') == 1
    assert cluster.metric('app_worker_exits_total{outcome="killed"}') == 0


def test_the_pause_before_a_restart_doubles(a_cluster):
    cluster = a_cluster(workers=1, policy={"first_seconds": 0.1}).ready()
    pid = cluster.worker_pid(0)
    for deaths in range(1, 4):
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(cluster.events("child_lost")) == deaths, "the loss is logged")  # noqa: B023
        # One answer has both: between two questions the listener may answer for the slot again.
        pid = eventually(lambda: cluster.new_pid(0, pid), "the slot serves again")  # noqa: B023
    pauses = [event["restart_in_seconds"] for event in cluster.events("child_lost")]
    assert pauses == [0.1, 0.2, 0.4]


def test_a_slot_that_spent_its_budget_waits_for_the_window(a_cluster):
    policy = {"first_seconds": 0.05, "budget": 2, "budget_window_seconds": 4.0}
    cluster = a_cluster(workers=1, policy=policy).ready()
    for _ in range(3):
        os.kill(eventually(lambda: cluster.new_pid(0, 0), "it serves"), 9)
        eventually(lambda: not cluster.lane(0), "it has ended")
    spent = eventually(lambda: cluster.events("restart_budget_spent"), "the spent budget is logged")
    assert spent[0]["restart_in_seconds"] > 1.0
    eventually(lambda: cluster.lane(0), "the slot serves again")


def test_a_slot_without_a_worker_answers_503_with_retry_after_and_closes(a_cluster):
    cluster = a_cluster(workers=2, policy={"first_seconds": 5.0, "longest_seconds": 5.0}).ready()
    os.kill(cluster.worker_pid(0), signal.SIGKILL)
    eventually(lambda: cluster.slot(0)[0] == 503, "the slot answers 503")
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: cluster.slot(0), range(200)))
    assert {status for status, _, _ in answers} == {503}
    assert {headers["Retry-After"] for _, _, headers in answers} == {"1"}
    assert {headers["Connection"] for _, _, headers in answers} == {"close"}
    assert cluster.lane(1)


def test_a_slot_answers_503_before_its_worker_is_ready(a_cluster):
    cluster = a_cluster(workers=1)
    cluster.mode.write_text("mute")
    cluster.start()
    assert eventually(lambda: (a := cluster.slot(0))[0] and a, "it answers")[0] == 503
    status, body, _ = cluster.get("/ready")
    assert status == 503
    assert "no worker is ready: starting" in body


def test_a_slot_answers_503_while_its_only_worker_drains(a_cluster):
    cluster = a_cluster(workers=1)
    cluster.mode.write_text("slow")
    cluster.ready()
    cluster.signal(signal.SIGTERM)
    eventually(lambda: cluster.slot(0)[0] == 503, "the slot answers 503", 5)
    assert cluster.wait() == 0


def test_workers_that_are_not_ready_keep_their_slots_but_the_cluster_is_not_ready(a_cluster):
    cluster = a_cluster().ready()
    (cluster.folder / "not_ready").write_text("")
    _, body, _ = eventually(
        lambda: (answer := cluster.get("/ready"))[0] == 503 and answer, "it is not ready"
    )
    assert "no worker is ready: not_ready: the file exists" in body
    assert cluster.metric("app_workers_alive") == 2
    assert cluster.lane(0)
    (cluster.folder / "not_ready").unlink()
    eventually(lambda: cluster.get("/ready")[0] == 200, "it is ready again")
    assert len(cluster.events("child_exited")) == 0


def test_a_silent_connection_to_a_slot_without_a_worker_is_closed(a_cluster):
    import socket

    cluster = a_cluster(workers=1)
    cluster.mode.write_text("mute")
    cluster.start()
    eventually(lambda: cluster.slot(0)[0] == 503, "the slot answers 503")
    with socket.create_connection(("127.0.0.1", cluster.base), timeout=10) as silent:
        assert silent.recv(100) == b""


def test_a_hung_worker_is_killed_and_replaced_within_the_heartbeat(a_cluster):
    cluster = a_cluster().ready()
    pid = cluster.worker_pid(0)
    began = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: cluster.events("child_hung"), "it is found hung", 15)
    assert time.monotonic() - began > 4.0
    eventually(lambda: cluster.slot(0)[0] == 200, "the slot serves again")
    assert cluster.worker_pid(0) != pid
    assert cluster.metric('app_worker_restarts_total{reason="hung"}') == 1
    assert cluster.metric('app_worker_exits_total{outcome="killed"}') == 1


def test_a_pause_of_the_supervisor_does_not_count_against_the_workers(a_cluster):
    cluster = a_cluster().ready()
    pids = [cluster.worker_pid(n) for n in range(2)]
    for pid in (cluster.process.pid, *pids):
        os.kill(pid, signal.SIGSTOP)
    try:
        # The pause must be longer than the heartbeat timeout of 5 s.
        time.sleep(6.5)
    finally:
        for pid in (cluster.process.pid, *pids):
            os.kill(pid, signal.SIGCONT)
    eventually(lambda: cluster.events("supervisor_paused"), "the pause is logged")
    assert [cluster.worker_pid(n) for n in range(2)] == pids
    assert cluster.events("child_hung") == []


def test_three_boot_failures_in_a_row_end_the_program_with_the_reason(a_cluster):
    cluster = a_cluster(workers=1)
    cluster.mode.write_text("boot")
    cluster.start()
    assert cluster.wait() == 3
    errors = cluster.errors()
    assert "worker w0a failed to boot 3 times in a row" in errors
    assert "the fake worker fails because of its mode" in errors
    assert len(cluster.events("child_started")) == 3


def test_a_boot_failure_that_would_be_the_same_again_ends_the_program_at_once(a_cluster):
    cluster = a_cluster(workers=1)
    cluster.mode.write_text("final")
    cluster.start()
    assert cluster.wait() == 3
    assert "worker w0a failed to boot, correct the cause and start again" in cluster.errors()
    assert "the fake worker fails because of its mode" in cluster.errors()
    assert len(cluster.events("child_started")) == 1


@pytest.mark.parametrize("fault", ["boot", "final"])
@pytest.mark.parametrize("is_added", [True, False], ids=["added", "restarted"])
def test_a_worker_that_does_not_boot_is_tried_again_as_long_as_another_serves(
    a_cluster, is_added: bool, fault: str
):
    cluster = a_cluster(workers=1 if is_added else 2).ready()
    cluster.mode.write_text(fault)
    before = len(_starts_in(cluster, "w1a"))
    if is_added:
        cluster.signal(signal.SIGTTIN)
    else:
        os.kill(cluster.worker_pid(1), signal.SIGKILL)
    eventually(lambda: len(_starts_in(cluster, "w1a")) > before + 4, "it is tried again and again")
    assert cluster.slot(0)[0] == 200
    assert cluster.metric('app_worker_restarts_total{reason="boot"}') >= 3
    assert cluster.events("boot_fails_again")
    cluster.mode.write_text("")
    eventually(lambda: cluster.slot(1)[0] == 200, "it has booted")
    cluster.mode.write_text("boot")
    for slot in range(2):
        os.kill(cluster.worker_pid(slot), signal.SIGKILL)
    assert cluster.wait() == 3, "none serves any more"


def test_a_worker_added_while_none_is_ready_waits_for_the_store(a_cluster):
    cluster = a_cluster(workers=1).ready()
    (cluster.folder / "not_ready").touch()
    eventually(lambda: cluster.get("/ready")[0] == 503, "the store is away")
    cluster.mode.write_text("away")
    cluster.signal(signal.SIGTTIN)
    eventually(lambda: cluster.metric("app_workers_alive") == 2, "it waits")
    assert len(_starts_in(cluster, "w1a")) == 1


def test_a_worker_that_cannot_be_imported_ends_the_program_with_its_last_output(a_cluster):
    cluster = a_cluster(workers=1, environment={"FAKE_WORKER_DIR": ""})
    del cluster.environment["FAKE_WORKER_DIR"]
    cluster.start()
    assert cluster.wait() == 3
    assert "KeyError: 'FAKE_WORKER_DIR' (exit code 1)" in cluster.errors()


def test_a_program_that_cannot_be_started_ends_the_program_with_the_reason(a_cluster):
    cluster = a_cluster(workers=1, environment={"FAKE_WORKER_PROGRAM": "/nonexistent/worker"})
    cluster.start()
    assert cluster.wait() == 3
    assert "No such file or directory: '/nonexistent/worker'" in cluster.errors()


def test_a_killed_valkey_comes_back_with_its_data(a_cluster):
    import redis

    cluster = a_cluster(embedded=True).ready()
    store = redis.Redis(unix_socket_path=str(cluster.data_dir / "run/valkey/valkey.sock"))
    store.set("kept", "yes")
    os.kill(_pid_of(cluster, "valkey"), signal.SIGKILL)
    eventually(lambda: len(_starts(cluster, "valkey")) == 2, "it is started again")
    eventually(lambda: cluster.get("/ready")[0] == 200, "the cluster is ready again")
    assert store.get("kept") == b"yes"


def test_the_embedded_valkey_is_reached_by_its_owner_alone(a_cluster):
    cluster = a_cluster(embedded=True).ready()
    folder = cluster.data_dir / "run/valkey"
    assert oct(folder.stat().st_mode & 0o777) == "0o700"
    import psutil

    valkey = psutil.Process(_pid_of(cluster, "valkey"))
    assert [c for c in valkey.net_connections("inet") if c.status == "LISTEN"] == []


def _starts(cluster, child: str) -> list[dict]:
    return [event for event in cluster.events("child_started") if event["child"] == child]


def _starts_in(cluster, lane: str) -> list[dict]:
    return [event for event in cluster.events("child_started") if event["lane"] == lane]


def _pid_of(cluster, child: str) -> int:
    return _starts(cluster, child)[-1]["pid"]
