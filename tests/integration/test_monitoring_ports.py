"""The ports of the tracker and of the stand-in receiver when clients hold connections open and descriptors run out."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from cluster.monitor.incidents.store import IncidentStore
from tests.harness.capabilities import without_resource_capability
from tests.harness.cluster import REPOSITORY, http_get
from tests.harness.processes import cpu_seconds, free_ports
from tests.harness.waiting import until

DESCRIPTORS = 48
SILENT = 60
# A connection without a head is closed after 10 s.
CLOSED_WITHIN = 40.0


@dataclass(frozen=True)
class Service:
    """A running command that listens, and the page that it is asked for."""

    port: int
    path: str
    pid: int
    output: Path

    def log(self) -> str:
        """What it has written."""
        return self.output.read_text(errors="replace")

    def answers(self) -> bool:
        """Whether the page comes, within 5 s."""
        try:
            return http_get(self.port, self.path).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def limit_files(self, count: int) -> None:
        """Change the soft limit of the running process."""
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (count, DESCRIPTORS))


def commands(port: int, folder: Path) -> dict[str, tuple[list[str], str]]:
    nowhere = f"http://127.0.0.1:{free_ports(1)}"
    sources = [
        "--prometheus-url",
        nowhere,
        "--alertmanager-url",
        nowhere,
        "--data-dir",
        str(folder),
    ]
    tracker = ["monitor", "keep", "--metrics-port", str(port), "--poll", "1h"]
    return {
        "tracker": ([*tracker, *sources], "/metrics"),
        "receiver": (["monitoring", "receive", "--port", str(port)], "/health"),
    }


@pytest.fixture(params=["tracker", "receiver"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """One of the two in a process that may open 48 files."""
    IncidentStore(tmp_path).close()
    port = free_ports(1)
    words, path = commands(port, tmp_path)[request.param]
    limited = ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"]
    command = [*without_resource_capability(), *limited, sys.executable, "-m", "cluster", *words]
    output = tmp_path / "output"
    with output.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
    found = Service(port, path, process.pid, output)
    try:
        deadline = time.monotonic() + 30
        while not found.answers():
            assert process.poll() is None, found.log()
            assert time.monotonic() < deadline, found.log()
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@contextlib.contextmanager
def silent_sockets(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Connections that never send anything."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            for _ in range(count)
        ]


def ended(sock: socket.socket) -> bool:
    """Wait until the other end has closed it; whether nothing came before."""
    sock.settimeout(CLOSED_WITHIN)
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


async def test_silent_connections_keep_no_scrape_out_and_take_no_last_descriptor(
    service: Service,
):
    with silent_sockets(service.port, SILENT) as sockets:
        await until(service.answers, 30, "it answers beside the silent connections")
        assert [service.answers() for _ in range(3)] == [True] * 3
        assert psutil.Process(service.pid).num_fds() <= DESCRIPTORS - DESCRIPTORS // 4
        assert all(ended(one) for one in sockets), "each was closed in time"
    assert service.answers()
    assert "Traceback" not in service.log()


async def test_a_head_that_never_ends_is_closed(service: Service):
    with silent_sockets(service.port, 2) as (slow, long):
        slow.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-")
        with contextlib.suppress(ConnectionError):
            long.sendall(b"GET / HTTP/1.1\r\n")
            for number in range(20):
                long.sendall(b"X-%d: %b\r\n" % (number, b"x" * 8000))
            assert long.recv(100).split()[1] == b"431"
        assert ended(slow)


async def test_without_a_free_descriptor_it_waits_says_so_seldom_and_recovers(service: Service):
    # Fewer than it holds: nothing more can be accepted.
    service.limit_files(4)
    with silent_sockets(service.port, 3):
        await until(lambda: "accept_failed" in service.log(), 20, "no connection is accepted")
        busy = cpu_seconds(service.pid)
        seconds = await until(
            lambda: service.log().count("accept_failed") >= 4, 20, "it tries again"
        )
        assert cpu_seconds(service.pid) - busy < max(seconds, 1.0) / 2
    service.limit_files(DESCRIPTORS)
    await until(service.answers, 30, "it answers again")
    assert service.log().count("accept_failed") <= 15
    assert "Traceback" not in service.log()
