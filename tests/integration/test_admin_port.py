"""The admin port and the supervisor when clients hold connections open and descriptors run out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import resource
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.harness.cluster import Cluster
from tests.harness.under_load import assert_no_traceback
from tests.harness.waiting import until, until_async

DESCRIPTORS = 300
SILENT = 320


class LimitedCluster(Cluster):
    """A real `ws-cluster up` on a terminal whose processes may open few files."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, workers=1, has_nginx=False)
        self._screen: list[str] = []

    def command(self) -> list[str]:
        return ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}", *super().command()]

    def spawn(self) -> None:
        """Start it on a pseudo-terminal, where it shows its status every second."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "config.json").write_text(json.dumps(self.config))
        controller, screen = pty.openpty()
        environment = {**os.environ, "PYTHONPATH": str(self.source)}
        self.process = subprocess.Popen(
            self.command(), cwd=self.source, env=environment, stdin=subprocess.DEVNULL,
            stdout=screen, stderr=screen, start_new_session=True,
        )  # fmt: skip
        os.close(screen)
        threading.Thread(target=self._read_screen, args=(controller,), daemon=True).start()

    def _read_screen(self, controller: int) -> None:
        with contextlib.suppress(OSError):
            while chunk := os.read(controller, 65536):
                self._screen.append(chunk.decode(errors="replace"))
        os.close(controller)

    def log(self) -> str:
        """What was on the screen."""
        return "".join(self._screen)

    def limit_files(self, count: int) -> None:
        """Change the soft limit of the running supervisor."""
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (count, DESCRIPTORS))

    def open_files(self) -> int:
        """The descriptors that the supervisor holds."""
        return psutil.Process(self.pid).num_fds()


@contextlib.contextmanager
def silent_sockets(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Connections that never send anything."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            for _ in range(count)
        ]


async def test_silent_connections_do_not_stop_the_supervisor_or_keep_an_operator_out(
    tmp_path: Path,
):
    async with LimitedCluster(tmp_path) as cluster:
        with silent_sockets(cluster.admin_port, SILENT) as sockets:
            for _ in range(3):
                assert (await cluster.get("/ready")).status == 200
                scrape = await cluster.metrics()
            assert cluster.open_files() < DESCRIPTORS - 32
            assert scrape.total("app_admin_connections_rejected_total") >= SILENT - DESCRIPTORS
            assert scrape.total("app_supervisor_errors_total") == 0
            for silent in sockets:
                silent.settimeout(20)
            assert await asyncio.to_thread(sockets[-1].recv, 1) == b"", "it was closed in time"
        assert (await cluster.get("/ready")).status == 200
        assert cluster.is_running
    assert_no_traceback(cluster)


async def test_a_supervisor_without_a_free_descriptor_goes_on_and_recovers(tmp_path: Path):
    async with LimitedCluster(tmp_path) as cluster:
        [before] = cluster.workers()
        errors = (await cluster.metrics()).total("app_supervisor_errors_total")
        cluster.limit_files(cluster.open_files())
        os.kill(before.pid, 9)
        await until(lambda: not cluster.workers(), 10, "the killed worker is gone")
        # Several rounds of the status line, and more starts of the worker than may fail at a boot.
        await until(lambda: cluster.log().count("child_start_failed") >= 4, 60, "4 failed starts")
        assert cluster.is_running
        cluster.limit_files(DESCRIPTORS)
        await until_async(cluster.is_ready, 60, "a new worker serves")
        after = await cluster.metrics()
        assert after.total("app_supervisor_errors_total") > errors
        assert after.total("app_supervisor_errors_total", type="spawn") >= 4
        assert len(cluster.workers()) == 1
