"""The metrics servers of load tests and drills when clients hold connections open and descriptors run out."""

from __future__ import annotations

import contextlib
import http.client
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.architecture.tree import ROOT
from tests.harness.capabilities import without_resource_capability
from tests.harness.cluster import http_get
from tests.harness.processes import cpu_seconds
from tests.harness.waiting import until

DESCRIPTORS = 48
SILENT = 60
CLOSED_WITHIN = 40.0

METRICS_SERVER = """
import signal
from loadtest.metrics_server import MetricsServer
print(MetricsServer(("127.0.0.1", 0), lambda: ()).port, flush=True)
"""
METRICS_PROXY = """
import signal
from loadtest.drilling.faults.metrics_proxy import MetricsProxy
from loadtest.metrics_server import MetricsServer
source = MetricsServer(("127.0.0.1", 0), lambda: ())
print(MetricsProxy(f"http://127.0.0.1:{source.port}", {}).port, flush=True)
"""
WAIT = "signal.sigwait({signal.SIGTERM})"
PROGRAMS = {
    "load test": f"from gevent import monkey; monkey.patch_all(){METRICS_SERVER}\n"
    "import gevent; gevent.sleep(3600)",
    "drill": METRICS_SERVER + WAIT,
    "proxy": METRICS_PROXY + WAIT,
}

#: The process and its port.
Server = tuple[int, int]


@pytest.fixture(params=PROGRAMS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One of the servers in a process that may open 48 files."""
    limited = ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"]
    program = [sys.executable, "-c", PROGRAMS[request.param]]
    with subprocess.Popen(
        [*without_resource_capability(), *limited, *program], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGKILL)


@contextlib.contextmanager
def silent_sockets(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Connections that never send anything."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            for _ in range(count)
        ]


def is_scraped(port: int) -> bool:
    """Whether a scrape is answered within 5 s."""
    try:
        return http_get(port, "/metrics").status == 200
    except (OSError, http.client.HTTPException):
        return False


def ended(sock: socket.socket) -> bool:
    """Wait until the other end has closed it, after whatever it said."""
    sock.settimeout(CLOSED_WITHIN)
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


async def test_silent_connections_delay_no_scrape_and_take_no_last_descriptor(server: Server):
    pid, port = server
    with silent_sockets(port, SILENT) as sockets:
        await until(lambda: is_scraped(port), 30, "it answers beside the silent connections")
        assert [is_scraped(port) for _ in range(3)] == [True] * 3
        assert psutil.Process(pid).num_fds() <= DESCRIPTORS - DESCRIPTORS // 4
        assert all(ended(one) for one in sockets), "each was closed in time"
    assert is_scraped(port)


async def test_a_head_that_comes_in_tiny_pieces_or_never_ends_is_closed(server: Server):
    _, port = server
    with silent_sockets(port, 2) as (slow, long):
        with contextlib.suppress(ConnectionError):
            long.sendall(b"GET /metrics HTTP/1.1\r\n")
            for number in range(20):
                long.sendall(b"X-%d: %b\r\n" % (number, b"x" * 8000))
            assert ended(long)
        slow.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        slow.settimeout(0.5)

        def is_closed() -> bool:
            with contextlib.suppress(TimeoutError):
                slow.sendall(b"x")
                return slow.recv(1) == b""
            return False

        with contextlib.suppress(ConnectionError):
            await until(is_closed, CLOSED_WITHIN, "a byte now and then does not keep it open")


async def test_without_a_free_descriptor_it_waits_and_recovers(server: Server):
    pid, port = server
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (4, DESCRIPTORS))
    with silent_sockets(port, 3):
        before = cpu_seconds(pid)
        await until(lambda: not is_scraped(port), 60, "a scrape has waited for 5 s")
        assert cpu_seconds(pid) - before < 2.5
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    await until(lambda: is_scraped(port), 30, "it answers again")
