"""The admin port and the supervisor when clients hold connections open and descriptors run out."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
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

from tests.harness.capabilities import without_resource_capability
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
        limited = ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"]
        return [*without_resource_capability(), *limited, *super().command()]

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
        kept = http.client.HTTPConnection("127.0.0.1", cluster.admin_port, timeout=30)
        assert ask_again(kept, "/health")[0] == 200
        # Fewer than it holds: nothing more can be opened, accepted or started.
        cluster.limit_files(8)
        os.kill(before.pid, 9)
        await until(lambda: not cluster.workers(), 10, "the killed worker is gone")
        with silent_sockets(cluster.admin_port, 3):
            await until(lambda: "accept_failed" in cluster.log(), 10, "no connection is accepted")
        for path in ("/runbooks/", "/runbooks/ServiceDown"):
            status, _, body = ask_again(kept, path)
            assert (status, b"ServiceDown" in body) == (200, True)
        status, headers, _ = ask_again(kept, "/metrics")
        assert (status, headers["Retry-After"]) == (503, "1")
        kept.close()
        # Several rounds of the status line, and more starts of the worker than may fail at a boot.
        await until(lambda: cluster.log().count("child_start_failed") >= 4, 60, "4 failed starts")
        assert cluster.is_running
        cluster.limit_files(DESCRIPTORS)
        await until_async(cluster.is_ready, 60, "a new worker serves")
        after = await cluster.metrics()
        assert after.total("app_supervisor_errors_total") > errors
        assert after.total("app_supervisor_errors_total", type="spawn") >= 4
        assert after.total("app_supervisor_errors_total", type="accept") >= 1
        assert after.total("app_supervisor_errors_total", type="background") >= 1
        assert after.total("app_supervisor_errors_total", type="collect") == 1
        assert after.total("app_supervisor_errors_total", type="http") == 0
        # Two a second at most, of which five in 30 s are logged.
        assert cluster.log().count("accept_failed") <= 15
        assert len(cluster.workers()) == 1


def ask_again(kept: http.client.HTTPConnection, path: str) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers and the body of an answer on a connection that stays open."""
    kept.request("GET", path)
    response = kept.getresponse()
    return response.status, dict(response.getheaders()), response.read()


def ask(
    port: int, path: str, headers: dict[str, str], method: str = "GET", host: str = "127.0.0.1"
) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers and the body of the answer to a request with these headers."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True)
        for name, value in {"Host": f"{host}:{port}", **headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


DETAILS = {"version", "instance", "reason", "children"}


async def test_a_public_client_behind_a_balancer_learns_yes_or_no_and_nothing_else(
    cluster: Cluster,
):
    named = {"X-Forwarded-For": "8.8.8.8"}
    for port in (cluster.port, cluster.admin_port):
        assert ask(port, "/metrics", named)[0] in (401, 403)
        assert ask(port, "/console/events", named)[0] == 401
        for path in ("/health", "/ready"):
            status, _, body = ask(port, path, named)
            assert status == 200
            assert not DETAILS & set(json.loads(body)), body
            assert DETAILS & set(json.loads(ask(port, path, {})[2])), "a local client sees them"
        assert ask(port, "/metrics", {"X-Forwarded-For": "10.3.3.3"})[0] == 200


async def test_a_page_whose_name_resolves_to_this_machine_reads_nothing(cluster: Cluster):
    rebound = {"Host": "evil.example:8001"}
    for port in (cluster.port, cluster.admin_port):
        assert ask(port, "/metrics", rebound)[0] == 401
        assert ask(port, "/console/events", rebound)[0] == 401
        assert set(json.loads(ask(port, "/ready", rebound)[2])) == {"ready"}
        assert set(json.loads(ask(port, "/health", rebound)[2])) == {"status"}


async def test_a_key_holder_scrapes_from_anywhere(cluster: Cluster):
    key = (cluster.directory / "data" / "admin.key").read_text().strip()
    foreign = {"Host": "evil.example", "X-Forwarded-For": "8.8.8.8"}
    status, _, body = ask(
        cluster.admin_port, "/metrics", {**foreign, "Authorization": f"Bearer {key}"}
    )
    assert (status, b"app_workers_alive" in body) == (200, True)


async def test_an_origin_or_a_host_that_is_none_is_refused(cluster: Cluster):
    for headers in ({"Origin": "http://["}, {"Host": "["}, {"Host": "[", "Origin": "http://["}):
        more = {"Content-Type": "application/json", "Content-Length": "0", **headers}
        status = ask(cluster.admin_port, "/console/key", more, "POST")[0]
        assert status in (400, 401, 403)


async def test_the_access_log_and_the_limits_see_the_client_behind_a_trusted_proxy(tmp_path: Path):
    config = {"server": {"trusted_proxies": ["10.9.0.0/16"]}}
    async with Cluster(tmp_path, workers=1, config=config) as cluster:
        chain = {"X-Forwarded-For": "6.6.6.6, 8.8.8.8, 10.9.0.4"}
        assert ask(cluster.port, "/health", chain)[0] == 200
        path = tmp_path / "data" / "log" / "access.log"

        def clients() -> list[str]:
            return [json.loads(line)["client"] for line in path.read_text().splitlines()]

        await until(lambda: "8.8.8.8" in clients(), 15, "nginx has written its log")
        assert "6.6.6.6" not in clients()


async def test_a_slow_head_a_slow_body_and_an_idle_connection_end(cluster: Cluster):
    key = (cluster.directory / "data" / "admin.key").read_text().strip()
    head = f"POST /console/ack HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {key}\r\n"
    begun = [b"GET /health HTTP/1.1\r\nHost: h\r\nX-", b""]
    begun.append(f"{head}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{{".encode())

    def wait_for_the_end(request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", cluster.admin_port), 5) as sock:
            sock.settimeout(30)
            sock.sendall(request)
            received = b""
            with contextlib.suppress(ConnectionResetError):
                while chunk := sock.recv(4096):
                    received += chunk
            return received

    ends = await asyncio.gather(*(asyncio.to_thread(wait_for_the_end, one) for one in begun))
    assert ends[:2] == [b"", b""]
    assert ends[2].startswith(b"HTTP/1.1 400 ")
    assert b"within 10 s" in ends[2]


async def test_a_head_that_never_ends_is_refused(cluster: Cluster):
    with socket.create_connection(("127.0.0.1", cluster.admin_port), 5) as sock:
        sock.settimeout(30)
        sock.sendall(b"GET /health HTTP/1.1\r\n")
        for number in range(20):
            sock.sendall(b"X-%d: %b\r\n" % (number, b"x" * 8000))
        assert sock.recv(100).startswith(b"HTTP/1.0 431 ")
