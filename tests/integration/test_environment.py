"""Odd environments of the program: closed streams, foreign variables, odd names of directories."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import websockets.sync.client

from tests.harness.cluster import REPOSITORY, Cluster, http_get
from tests.harness.needs import needs_root
from tests.harness.small_disk import fill
from tests.harness.waiting import until, until_async

KUBERNETES = {
    "WS_CLUSTER_SERVICE_HOST": "10.96.7.1",
    "WS_CLUSTER_SERVICE_PORT": "8000",
    "WS_CLUSTER_SERVICE_PORT_HTTP": "8000",
    "WS_CLUSTER_PORT": "tcp://10.96.7.1:8000",
    "WS_CLUSTER_PORT_8000_TCP": "tcp://10.96.7.1:8000",
    "WS_CLUSTER_PORT_8000_TCP_PROTO": "tcp",
    "WS_CLUSTER_PORT_8000_TCP_PORT": "8000",
    "WS_CLUSTER_PORT_8000_TCP_ADDR": "10.96.7.1",
    "WS_CLUSTER_ADMIN_SERVICE_HOST": "fd00::1",
    "WS_CLUSTER_ADMIN_PORT": "tcp://[fd00::1]:8001",
}


class OddCluster(Cluster):
    """A cluster started by a shell line; `$@` is the command."""

    def __init__(
        self, directory: Path, *, line: str = 'exec "$@"', env: dict[str, str] | None = None
    ) -> None:
        super().__init__(directory, workers=1)
        self.line = line
        self.environment = env or {}

    def spawn(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "config.json").write_text(json.dumps(self.config))
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", self.line, "sh", *self.command()],
                cwd=self.source,
                env={**os.environ, "PYTHONPATH": str(self.source), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def app_log(self) -> list[dict[str, Any]]:
        text = (self.directory / "data/log/app.log").read_text()
        return [json.loads(line) for line in text.splitlines()]


async def serves_and_stops(cluster: Cluster) -> None:
    await cluster.start(within=120)
    await asyncio.to_thread(_connect_once, cluster.port)
    assert await cluster.stop() == 0


def _connect_once(port: int) -> None:
    with websockets.sync.client.connect(f"ws://127.0.0.1:{port}/connection/websocket") as client:
        client.send('{"id":1,"connect":{}}')
        assert "connect" in json.loads(client.recv())
    assert http_get(port, "/metrics").status == 200


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
async def test_the_cluster_runs_with_closed_standard_streams(tmp_path, closed):
    cluster = OddCluster(tmp_path, line=f'exec "$@" {closed}')
    await serves_and_stops(cluster)
    assert {"cluster_started", "worker_ready", "stopped"} <= {e["event"] for e in cluster.app_log()}


async def test_variables_of_a_service_of_kubernetes_are_ignored_with_a_note(tmp_path):
    cluster = OddCluster(tmp_path, env=KUBERNETES)
    await serves_and_stops(cluster)
    (note,) = [line for line in cluster.log_tail().splitlines() if "environment_ignored" in line]
    assert json.loads(note)["names"] == sorted(KUBERNETES)


async def test_an_instance_that_is_not_this_machine_is_said_once(tmp_path):
    given = "no-such-name.invalid:8001"
    cluster = OddCluster(tmp_path, env={"WS_CLUSTER_SERVER__INSTANCE": given})
    await serves_and_stops(cluster)
    (warning,) = [line for line in cluster.log_tail().splitlines() if "instance_not_found" in line]
    assert json.loads(warning)["name"] == given


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WS_CLUSTER_PORT", "9000"),
        ("WS_CLUSTER_SERVER__PORT", "tcp://10.96.7.1:8000"),
        ("WS_CLUSTER_HOST", "10.96.7.1"),
    ],
)
def test_a_mistyped_option_is_still_a_mistake(name, value):
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "check-config", "cluster/config/development.toml"],
        cwd=REPOSITORY,
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78, done.stderr
    assert value in done.stderr


# The sockets of a long path are in the temporary directory, those of a short one are below it.
SHORT = "$a b\"'{c};\\n"
NASTY = ("a b", "a$b", "${host}", 'a"b', "a'b", "a;b", "a{b}", "a#b", "a\\b", "a%b", "ü~é", "a%{b}")


@pytest.mark.parametrize("name", [SHORT, "".join(NASTY)], ids=["short", "long"])
async def test_any_name_of_a_data_directory_works(tmp_path, name):
    await serves_and_stops(Cluster(tmp_path / name, workers=1))
    log = tmp_path / name / "data/log"
    assert "/connection/websocket" in (log / "access.log").read_text()
    assert "cluster_started" in (log / "app.log").read_text()


def with_shared_memory(size: str) -> str:
    """A shell line that gives the command a /dev/shm of its own."""
    mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    return f"exec unshare --mount /bin/sh -c '{mount}' sh \"$@\""


@needs_root("a mount namespace needs root")
async def test_the_cluster_starts_without_room_in_shared_memory(tmp_path):
    cluster = OddCluster(tmp_path, line=with_shared_memory("64k"))
    await serves_and_stops(cluster)
    assert "shared_memory_found_full" in (tmp_path / "cluster.log").read_text()


@needs_root("a mount namespace needs root")
async def test_shared_memory_that_fills_up_stops_neither_workers_nor_their_successors(tmp_path):
    async with OddCluster(tmp_path, line=with_shared_memory("4m")) as cluster:
        fill(Path(f"/proc/{cluster.pid}/root/dev/shm"))
        (old,) = cluster.workers()
        os.kill(old.pid, signal.SIGKILL)

        def is_replaced() -> bool:
            return [one.pid for one in cluster.workers() if one.pid != old.pid] != []

        await until(is_replaced, 60, "a worker is started")
        await until_async(cluster.is_ready, 60, "the new worker is ready")
        await cluster.roll()
        await asyncio.to_thread(_connect_once, cluster.port)
        assert "metrics_file_failed" in {event["event"] for event in cluster.app_log()}
        assert (await cluster.metrics()).total("app_worker_exits_total", outcome="crashed") == 1
