"""Workers are replaced, added and removed while the cluster serves."""

from __future__ import annotations

import os
import signal
import socket
import threading

from cluster.supervisor.shutdown_log import ShutdownLog
from tests.integration.running import eventually


def test_a_roll_moves_every_slot_to_its_other_lane_and_refuses_no_request(a_cluster):
    cluster = a_cluster(workers=2).ready()
    cluster.mode.write_text("slow")
    refused: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            refused.extend(n for n in range(2) if cluster.slot(n)[0] != 200)

    asking = threading.Thread(target=ask)
    asking.start()
    cluster.signal(signal.SIGHUP)
    eventually(lambda: cluster.events("operation_finished"), "the roll is done")
    stop.set()
    asking.join()
    assert [cluster.lane(n) for n in range(2)] == ["w0b", "w1b"]
    assert refused == []
    assert cluster.metric('app_worker_restarts_total{reason="roll"}') == 2
    assert cluster.metric("app_shutdown_duration_seconds_count") == 2
    for phase in ("clients", "broker", "sessions", "exit"):
        name = f'app_shutdown_phase_duration_seconds_count{{phase="{phase}"}}'
        assert cluster.metric(name) == 2


def test_workers_are_rolled_one_by_one(a_cluster):
    cluster = a_cluster(workers=3).ready()
    cluster.mode.write_text("slow")
    cluster.signal(signal.SIGHUP)
    eventually(lambda: cluster.events("operation_finished"), "the roll is done")
    times = {
        (event["event"], event["lane"]): event["ts"]
        for name in ("child_started", "child_exited")
        for event in cluster.events(name)
    }
    for number in range(2):
        assert times["child_exited", f"w{number}a"] < times["child_started", f"w{number + 1}b"]


def test_a_roll_requested_during_a_roll_waits(a_cluster):
    cluster = a_cluster(workers=1).ready()
    cluster.mode.write_text("slow")
    cluster.signal(signal.SIGHUP)
    eventually(lambda: cluster.events("operation_started"), "the first roll runs")
    cluster.signal(signal.SIGHUP)
    eventually(lambda: len(cluster.events("operation_finished")) == 2, "both rolls are done")
    assert cluster.lane(0) == "w0a"
    assert cluster.metric('app_worker_restarts_total{reason="roll"}') == 2


def test_a_roll_whose_new_worker_cannot_boot_leaves_the_old_one_serving(a_cluster):
    cluster = a_cluster(workers=1).ready()
    pid = cluster.worker_pid(0)
    cluster.mode.write_text("boot")
    cluster.signal(signal.SIGHUP)
    event = eventually(lambda: cluster.events("operation_finished"), "the roll has failed")[0]
    assert event["done"] is False
    assert cluster.worker_pid(0) == pid
    assert "fails because of its mode" in cluster.events("roll_failed")[0]["reason"]


def test_a_roll_reads_the_configuration_again_and_refuses_a_bad_one(a_cluster, tmp_path):
    file = tmp_path / "config.toml"
    file.write_text("client.channel_limit = 11\n")
    cluster = a_cluster(workers=1, file=file).ready()
    assert cluster.slot(0)[1].split()[2] == "11"
    file.write_text("client.channel_limit = 12\n")
    cluster.signal(signal.SIGHUP)
    eventually(lambda: cluster.slot(0)[1].endswith(" 12"), "the new value is used")
    eventually(lambda: len(cluster.events("operation_finished")) == 1, "the roll is done")
    file.write_text("client.channel_limt = 13\n")
    cluster.signal(signal.SIGHUP)
    eventually(lambda: len(cluster.events("operation_finished")) == 2, "the roll is refused")
    assert "client.channel_limit" in cluster.events("reload_failed")[0]["problems"][0]
    assert cluster.lane(0) == "w0b"


def test_a_worker_that_dies_during_a_roll_is_still_replaced(a_cluster):
    cluster = a_cluster(workers=2).ready()
    cluster.mode.write_text("slow")
    first, second = cluster.worker_pid(0), cluster.worker_pid(1)
    cluster.signal(signal.SIGHUP)
    eventually(lambda: cluster.events("operation_started"), "the roll runs")
    os.kill(first, signal.SIGKILL)
    os.kill(second, signal.SIGKILL)
    eventually(lambda: cluster.events("operation_finished"), "the roll is done")
    eventually(lambda: cluster.lane(0) and cluster.lane(1), "both slots serve")
    assert cluster.metric("app_workers_alive") == 2
    eventually(lambda: len(_running(cluster)) == 2, "no extra worker runs")


def test_a_new_worker_that_crashes_is_restarted_while_the_old_one_drains(a_cluster):
    cluster = a_cluster(workers=1)
    cluster.mode.write_text("held")
    cluster.ready()
    cluster.mode.write_text("")
    cluster.signal(signal.SIGHUP)
    eventually(lambda: "w0a" in _draining(cluster), "the old one drains")
    pid = cluster.worker_pid(0)
    for _ in range(2):
        os.kill(pid, signal.SIGKILL)
        pid = eventually(lambda: cluster.new_pid(0, pid), "the slot serves again")  # noqa: B023
        assert cluster.lane(0) == "w0b"
        assert "w0a" not in {event["lane"] for event in cluster.events("child_exited")}
    (cluster.folder / "release").touch()
    event = eventually(lambda: cluster.events("operation_finished"), "the roll is done")[0]
    assert event["done"] is True
    assert cluster.worker_pid(0) == pid
    assert len(_running(cluster)) == 1
    assert cluster.metric('app_worker_restarts_total{reason="roll"}') == 1
    assert cluster.metric('app_worker_restarts_total{reason="crash"}') == 2
    # Who is watched now: the one that was restarted.
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: cluster.new_pid(0, pid), "the slot serves again")


def test_a_stop_during_a_roll_leaves_no_process(a_cluster):
    cluster = a_cluster(workers=2).ready()
    cluster.mode.write_text("mute")
    cluster.signal(signal.SIGHUP)
    eventually(lambda: len(cluster.events("child_started")) == 3, "the new worker is started")
    assert cluster.stop() == 0
    assert not cluster.survivors()


def test_a_stop_waits_for_a_worker_that_is_being_removed_and_does_not_hurry_it(a_cluster):
    cluster = a_cluster(workers=1, embedded=True).ready()
    cluster.mode.write_text("slow")
    cluster.signal(signal.SIGTTIN)
    eventually(lambda: cluster.events("operation_finished"), "a slow one is added")
    cluster.signal(signal.SIGTTOU)
    eventually(lambda: "w1a" in _draining(cluster), "it is being removed")
    assert cluster.metric("app_workers_alive") == 1
    assert "w1a" in cluster.get("/ready")[1]
    assert cluster.stop() == 0
    _assert_each_drained_before_the_store(cluster, ["w0a", "w1a"])


def test_a_stop_during_a_roll_does_not_hurry_the_old_worker(a_cluster):
    cluster = a_cluster(workers=1, embedded=True)
    cluster.mode.write_text("slow")
    cluster.ready()
    cluster.mode.write_text("")
    cluster.signal(signal.SIGHUP)
    eventually(lambda: "w0a" in _draining(cluster), "the old one drains")
    assert cluster.stop() == 0
    _assert_each_drained_before_the_store(cluster, ["w0a", "w0b"])


def _draining(cluster) -> set[str]:
    reports = cluster.events("child_reported")
    return {event["lane"] for event in reports if event["state"] == "draining"}


def _assert_each_drained_before_the_store(cluster, lanes: list[str]) -> None:
    """Each got one stop signal (code 0) and is in the shutdown log; one that is lost has no exit."""
    exits = {event["lane"]: event for event in cluster.events("child_exited")}
    assert {lane: exits[lane]["code"] for lane in exits} == dict.fromkeys([*lanes, "valkey"], 0)
    assert max(exits, key=lambda lane: exits[lane]["ts"]) == "valkey"
    found = ShutdownLog(cluster.data_dir / "shutdowns.jsonl").read()
    assert [one.outcome for one in found] == ["clean"] * len(lanes)
    assert max(one.seconds or 0.0 for one in found) >= 1.0
    assert not cluster.survivors()


def test_ttin_adds_a_worker_and_ttou_removes_it_and_nginx_follows(a_cluster):
    cluster = a_cluster(workers=1, nginx=True).ready()
    assert _lanes_through_nginx(cluster) == {"w0a"}
    cluster.signal(signal.SIGTTIN)
    eventually(lambda: len(cluster.events("operation_finished")) == 1, "it is added")
    eventually(lambda: _lanes_through_nginx(cluster) == {"w0a", "w1a"}, "nginx uses both")
    assert cluster.metric("app_workers_alive") == 2
    cluster.signal(signal.SIGTTOU)
    eventually(lambda: len(cluster.events("operation_finished")) == 2, "it is removed")
    assert _lanes_through_nginx(cluster) == {"w0a"}
    assert cluster.slot(1)[0] == 0
    assert cluster.metric("app_workers_alive") == 1


def test_a_worker_whose_port_is_taken_is_not_added(a_cluster):
    cluster = a_cluster(workers=1).ready()
    with socket.create_server(("127.0.0.1", cluster.base + 1)):
        cluster.signal(signal.SIGTTIN)
        event = eventually(lambda: cluster.events("operation_finished"), "it is tried")[0]
    assert event["done"] is False
    assert "is in use" in cluster.events("worker_add_failed")[0]["problems"][0]
    assert cluster.get("/ready")[0] == 200


def test_the_last_worker_is_not_removed(a_cluster):
    cluster = a_cluster(workers=1).ready()
    cluster.signal(signal.SIGTTOU)
    event = eventually(lambda: cluster.events("operation_finished"), "the request is handled")[0]
    assert event["done"] is False
    assert cluster.lane(0) == "w0a"


def _lanes_through_nginx(cluster) -> set[str]:
    answers = [cluster.get("/connection/websocket", port=cluster.public) for _ in range(12)]
    return {body.split()[0] for status, body, _ in answers if status == 200}


def _running(cluster) -> list[str]:
    started = [event["pid"] for event in cluster.events("child_started")]
    exited = [event["pid"] for event in cluster.events("child_exited")]
    return [pid for pid in started if pid not in exited]


def test_a_roll_replaces_a_worker_that_was_being_started_with_what_was_replaced(
    a_cluster, tmp_path
):
    file = tmp_path / "config.toml"
    file.write_text("client.channel_limit = 11\n")
    cluster = a_cluster(workers=1, file=file).ready()
    cluster.mode.write_text("slow")
    os.kill(cluster.worker_pid(0), signal.SIGKILL)
    eventually(lambda: len(cluster.events("child_started")) == 2, "the worker is started again")
    file.write_text("client.channel_limit = 12\n")
    cluster.signal(signal.SIGHUP)
    eventually(lambda: cluster.events("operation_finished"), "the roll is done")
    eventually(lambda: cluster.slot(0)[0] == 200, "a worker answers")
    assert cluster.slot(0)[1].split()[2] == "12"
