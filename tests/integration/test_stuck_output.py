"""Standard output that nobody reads: the cluster serves, drains and stops as if it were read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness.client import Client
from tests.harness.cluster import REPOSITORY, Cluster
from tests.harness.waiting import until, until_async


def _request_often(port: int, times: int = 200) -> None:
    """Send requests one after the other; at level debug each is a line of the log."""
    request = b"GET /nowhere HTTP/1.1\r\nHost: x\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall((request + b"\r\n") * (times - 1) + request + b"Connection: close\r\n\r\n")
        while sock.recv(65536):
            pass


def full_pipe() -> tuple[int, int]:
    """The ends of a pipe that is full; reading from it does not block, writing does."""
    reads, writes = os.pipe()
    os.set_blocking(reads, False)
    os.set_blocking(writes, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writes, b"\n" * 512)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writes, b"\n")
    os.set_blocking(writes, True)
    return reads, writes


class PipedCluster(Cluster):
    """A cluster whose standard output is a pipe that is full from the start."""

    def __init__(self, directory: Path, *, options: dict[str, Any] | None = None, **more) -> None:
        super().__init__(directory, config={"log": {"level": "debug"}, **(options or {})}, **more)
        self.reads, self.writes = full_pipe()

    def spawn(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "config.json").write_text(json.dumps(self.config))
        with self.log_path.open("ab") as errors:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.source,
                env={**os.environ, "PYTHONPATH": f"{self.source}:{self.directory}"},
                stdin=subprocess.DEVNULL,
                stdout=self.writes,
                stderr=errors,
                start_new_session=True,
            )
        os.close(self.writes)

    def read(self) -> str:
        """What the pipe holds now."""
        text = b""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.reads, 1 << 20):
                text += chunk
        return text.decode()


async def test_a_reader_that_stops_reading_stops_neither_workers_nor_supervisor(tmp_path):
    cluster = PipedCluster(tmp_path)
    await cluster.start()
    client = Client(cluster.port, name="calm")
    await client.start()
    got = []
    client.subscribe("calm", lambda _, publication: got.append(publication))
    await until(lambda: client.is_whole, 10, "the client is in its channel")
    await client.publish("calm", "hello")
    await until(lambda: bool(got), 10, "the publication arrives")
    await client.close()
    # A roll makes the supervisor log, and starts workers whose output is stuck from the start.
    await cluster.roll()
    code = await cluster.stop(within=20)
    assert code == 0
    os.close(cluster.reads)


async def test_lines_that_do_not_fit_are_counted_and_mentioned_when_it_flows_again(tmp_path):
    cluster = PipedCluster(tmp_path, workers=1, has_nginx=False)
    await cluster.start()

    async def drops_lines() -> bool:
        await asyncio.to_thread(_request_often, cluster.worker_port(0))
        metrics = await cluster.metrics()
        return metrics.total("app_log_lines_dropped_total", output="stream") > 0

    # The file still gets every line while the stream is stuck.
    await until_async(drops_lines, 60, "lines are dropped")
    assert "cluster_started" in (tmp_path / "data/log/app.log").read_text()
    seen = []

    def mentioned() -> bool:
        seen.append(cluster.read())
        return "log_lines_dropped" in "".join(seen)

    await until(mentioned, 20, "the log says that lines were dropped")
    lines = [json.loads(line) for line in "".join(seen).split("\n")[:-1] if line]
    (said,) = [line for line in lines if line["event"] == "log_lines_dropped"][:1]
    assert said["lines"] > 0
    assert said["output"] == "stream"
    assert await cluster.stop() == 0
    os.close(cluster.reads)


PRINTING = """
import sys

import cluster

app = cluster.Application()


@app.rpc("shout")
async def shout(client: cluster.ApplicationClient, number: int) -> int:
    print("x" * 70_000)
    sys.stdout.buffer.write(b"shouted %d\\n" % number)
    return number
"""


async def test_a_reader_that_stops_reading_does_not_stop_an_application_that_prints(tmp_path):
    (tmp_path / "printing.py").write_text(PRINTING)
    options = {"app": {"target": "printing:app"}}
    cluster = PipedCluster(tmp_path, workers=1, has_nginx=False, options=options)
    seen = []

    async def drops_lines() -> bool:
        metrics = await cluster.metrics()
        return metrics.total("app_log_lines_dropped_total", output="stream") > 0

    def is_printed() -> bool:
        seen.append(cluster.read())
        lines = "".join(seen).split("\n")
        return "x" * 70_000 in lines and "shouted 0" in lines

    async with cluster:
        client = await Client(cluster.worker_port(0), name="calm").start()
        for number in range(5):
            request = {"method": "shout", "data": number}
            assert await client.call("rpc", request, timeout=60) == {"data": number}
        await until_async(drops_lines, 60, "what does not fit is counted")
        assert (await cluster.metrics()).total("app_worker_exits_total") == 0
        await client.close()
        await until(is_printed, 60, "what was printed first is read")
    os.close(cluster.reads)


@pytest.mark.parametrize("options", [(), ("--config", "/nowhere")])
def test_a_stuck_standard_error_does_not_keep_a_failed_start_from_ending(options):
    reads, writes = full_pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "cluster", "up", *options],
            cwd=REPOSITORY,
            stdout=writes,
            stderr=writes,
            timeout=60,
            check=False,
        )
        assert done.returncode == 78
    finally:
        os.close(reads)
        os.close(writes)
