"""The embedded nginx reaches the workers over unix sockets, and over TCP only where that is impossible."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.children.binaries import nginx_program
from cluster.children.local_sockets import LocalSockets
from cluster.children.nginx import (
    NginxSettings,
    render,
    unprivileged_group,
    unprivileged_user,
)
from tests.harness.client import Client
from tests.harness.cluster import Cluster, http_get
from tests.harness.needs import needs_root
from tests.harness.processes import accepted_connections
from tests.harness.wire import HandshakeRefused, open_wire
from tests.integration.running import Running, eventually, free_ports

ANY_CHARACTERS = "$a b\"'{c};:#ü~%{d}"


def upstreams(data_dir: Path) -> list[str]:
    """The workers as nginx's configuration names them."""
    # With a long data directory the run directory is in the temporary one.
    text = (data_dir / "run/nginx/nginx.conf").read_text()
    block = text.partition("upstream workers {")[2].partition("}")[0]
    return re.findall(r"server (?:\"unix:)?([^\"\s]+)\"? max_fails=0;", block)


def through_nginx(cluster: Running) -> tuple[int, str]:
    status, body, _ = cluster.get("/connection/websocket", port=cluster.public)
    return status, body


def served_by(data_dir: Path) -> set[str]:
    """What the access log names as the upstreams of all requests; nginx writes it when it ends."""
    lines = (data_dir / "log/access.log").read_text().splitlines()
    return {json.loads(line)["upstream"] for line in lines}


def test_nginx_reaches_each_worker_over_its_unix_socket_and_others_over_its_port(a_cluster):
    cluster = a_cluster(workers=2, nginx=True).ready()
    paths = upstreams(cluster.data_dir)
    assert [Path(path).name for path in paths] == ["w0", "w1"]
    assert all(Path(path).is_socket() for path in paths)
    assert {through_nginx(cluster)[1].split()[0] for _ in range(12)} == {"w0a", "w1a"}
    assert [cluster.lane(n) for n in range(2)] == ["w0a", "w1a"]
    assert cluster.stop() == 0
    assert served_by(cluster.data_dir) == {f"unix:{path}" for path in paths}
    assert not any(Path(path).parent.exists() for path in paths)
    assert not cluster.events("worker_sockets_not_opened")


def test_a_slot_without_a_worker_answers_at_once_through_nginx(a_cluster):
    cluster = a_cluster(workers=1, nginx=True, policy={"first_seconds": 600.0}).ready()
    os.kill(cluster.worker_pid(0), signal.SIGKILL)
    eventually(lambda: cluster.slot(0)[0] == 503, "the supervisor answers for the slot")
    assert through_nginx(cluster)[0] == 503


def test_a_killed_worker_is_replaced_at_the_same_socket(a_cluster):
    cluster = a_cluster(workers=1, nginx=True).ready()
    [path] = upstreams(cluster.data_dir)
    before = Path(path).stat().st_ino
    pid = cluster.worker_pid(0)
    os.kill(pid, signal.SIGKILL)

    def is_replaced() -> bool:
        status, body = through_nginx(cluster)
        return status == 200 and int(body.split()[1]) != pid

    eventually(is_replaced, "the new worker serves through nginx")
    assert Path(path).stat().st_ino == before


def test_a_roll_refuses_no_request_through_nginx(a_cluster):
    cluster = a_cluster(workers=2, nginx=True).ready()
    cluster.mode.write_text("slow")
    answers: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answers.append(through_nginx(cluster)[0])

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for one in asking:
        one.start()
    cluster.signal(signal.SIGHUP)
    eventually(lambda: cluster.events("operation_finished"), "the roll is done")
    stop.set()
    for one in asking:
        one.join()
    assert set(answers) == {200}
    assert {through_nginx(cluster)[1].split()[0] for _ in range(12)} == {"w0b", "w1b"}


def test_a_start_after_kill_9_replaces_the_sockets_that_are_left(a_cluster):
    cluster = a_cluster(workers=2, nginx=True).ready()
    paths = upstreams(cluster.data_dir)
    cluster.signal(signal.SIGKILL)
    cluster.wait()
    assert all(Path(path).is_socket() for path in paths)
    again = a_cluster(
        workers=2, nginx=True, options={"server.data_dir": str(cluster.data_dir)}
    ).ready()
    assert upstreams(cluster.data_dir) == paths
    assert through_nginx(again)[0] == 200
    assert again.stop() == 0
    assert not any(Path(path).exists() for path in paths)


def has_finished(cluster: Running, operations: int) -> bool:
    return len(cluster.events("operation_finished")) == operations


def test_a_worker_that_is_added_has_a_socket_until_it_is_removed(a_cluster):
    cluster = a_cluster(workers=1, nginx=True).ready()
    [first] = upstreams(cluster.data_dir)
    added = Path(first).with_name("w1")
    for number, (wish, is_there) in enumerate(
        [(signal.SIGTTIN, True), (signal.SIGTTOU, False), (signal.SIGTTIN, True)], 1
    ):
        cluster.signal(wish)
        eventually(partial(has_finished, cluster, number), "it is done")
        assert added.is_socket() == is_there
        assert upstreams(cluster.data_dir) == [first, str(added)][: 1 + is_there]
    eventually(
        lambda: {through_nginx(cluster)[1].split()[0] for _ in range(12)} == {"w0a", "w1a"},
        "nginx uses both",
    )


# --- where it is difficult -----------------------------------------------------------------


def test_a_data_directory_whose_path_is_too_long_for_a_socket_has_them_elsewhere(a_cluster):
    cluster = a_cluster(workers=1, nginx=True)
    cluster.data_dir = cluster.folder / ("long" * 30)
    cluster.options["server.data_dir"] = str(cluster.data_dir)
    cluster.ready()
    assert through_nginx(cluster)[0] == 200
    assert cluster.stop() == 0
    [path] = served_by(cluster.data_dir)
    assert path.startswith("unix:/")
    assert len(path) < len(str(cluster.data_dir))


@needs_root("a mount namespace needs root")
def test_where_nginx_s_user_can_reach_no_socket_it_is_said_and_tcp_is_used(a_cluster):
    cluster = a_cluster(workers=2, nginx=True, environment={"TMPDIR": "/run"})
    # Root stays root, because no other user can enter the directories of tests.
    closed = "mount -t tmpfs -o mode=0700 tmpfs /run"
    cluster.program_prefix = [
        "unshare", "--mount", "/bin/sh", "-c", f'{closed} && exec "$@"', "sh",
        *cluster.program_prefix,
    ]  # fmt: skip
    cluster.ready()
    [warning] = cluster.events("worker_sockets_not_opened")
    assert warning["reason"] == "neither /run nor /run can have a directory for nginx's user"
    assert "over TCP" in warning["hint"]
    assert upstreams(cluster.data_dir) == [f"127.0.0.1:{cluster.base + n}" for n in range(2)]
    assert {through_nginx(cluster)[1].split()[0] for _ in range(12)} == {"w0a", "w1a"}
    assert cluster.stop() == 0


@pytest.fixture
def nginx_before() -> Iterator[Callable[[list[str]], int]]:
    """Starts nginx with these workers; returns its port."""
    started = []
    with tempfile.TemporaryDirectory() as folder:

        def start(workers: list[str]) -> int:
            [port] = free_ports(1)
            settings = NginxSettings(
                listen=f"127.0.0.1:{port}", workers=workers, admin="127.0.0.1:1",
                ping_interval_seconds=25, file_limit=1024, user=unprivileged_user(),
                access_log="/dev/null",
            )  # fmt: skip
            conf = Path(folder, "nginx.conf")
            conf.write_text(render(settings), encoding="utf-8")
            words = [nginx_program(), "-p", f"{folder}/", "-c", str(conf), "-e", "stderr"]
            started.append(subprocess.Popen(words))
            return port

        yield start
        for one in started:
            one.terminate()
            one.wait(10)


def test_nginx_s_user_connects_to_a_socket_whose_path_has_any_characters(nginx_before):
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base, ANY_CHARACTERS)
        folder.mkdir()
        group = unprivileged_group()
        if group is not None:
            for path in (Path(base), folder):
                os.chown(path, -1, group)
                path.chmod(0o710)
        sockets = LocalSockets(lambda: folder, group)
        sock = sockets.open(0)
        assert sock is not None
        sock.setblocking(True)
        port = nginx_before([f"unix:{folder}/w0"])
        answering = threading.Thread(target=answer_once, args=(sock,), daemon=True)
        answering.start()
        assert eventually(lambda: answer_of(port), "nginx has started").startswith(b"HTTP/1.1 200")
        answering.join(10)
        sockets.close_all()


def answer_once(sock: socket.socket) -> None:
    connection, _ = sock.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def answer_of(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(b"GET /api/x HTTP/1.0\r\nHost: x\r\n\r\n")
            return client.recv(100)
    except ConnectionRefusedError:
        return b""


# --- with real workers ---------------------------------------------------------------------


async def test_clients_of_nginx_are_connections_of_the_workers_unix_sockets(tmp_path: Path):
    limits: dict[str, Any] = {"client": {"connection_limit_per_address": 6}}
    async with Cluster(tmp_path / "run", workers=2, config=limits) as cluster:
        pids = [worker.pid for worker in cluster.workers()]
        assert [accepted_connections(pid, slot) for slot, pid in enumerate(pids)] == [0, 0]
        clients = [await Client(cluster.client_port).start() for _ in range(6)]
        assert [accepted_connections(pid, slot) for slot, pid in enumerate(pids)] == [3, 3]
        await cluster.shows("app_active_connections", 6)
        for slot, pid in enumerate(pids):
            connections = psutil.Process(pid).net_connections(kind="tcp")
            port = cluster.worker_port(slot)
            assert not [c for c in connections if c.laddr.port == port and c.raddr]
        # Only the client's own address is full, and only through what nginx says about it.
        with pytest.raises(HandshakeRefused) as refused:
            await open_wire(cluster.client_port)
        assert refused.value.status == 429
        for number in range(8):
            wire = await open_wire(
                cluster.client_port, headers={"X-Forwarded-For": f"192.0.2.{number}"}
            )
            wire.close()
        answer = await asyncio.to_thread(http_get, cluster.worker_port(0), "/nowhere")
        assert answer.status == 404
        for client in clients:
            await client.close()
