"""Starts `python -m cluster up` on free ports with its own data directory, and always ends it by pid.

It uses the command line, the configuration and the admin port, and nothing of the implementation.
Guarantee: after `stop` no process that it started, nor any descendant seen, is left; `log` keeps what
the program wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.harness.metrics import Metrics, parse_metrics
from tests.harness.processes import children, command_line, end, family, free_ports, is_running
from tests.harness.waiting import until, until_async

REPOSITORY = Path(__file__).parents[2]
READY_WITHIN = 30.0
SPARE_SLOTS = 3
# The default of a test: every channel is recoverable, and no token is required.
BASE_CONFIG: dict[str, Any] = {
    "client": {"insecure": True},
    "channel": {
        "without_namespace": {
            "history_size": 1000,
            "history_ttl": "300s",
            "force_recovery": True,
            "force_positioning": True,
        },
        "namespaces": [{"name": "plain"}],
    },
}


@dataclass(frozen=True, slots=True)
class Worker:
    """One running worker process as /proc shows it."""

    slot: int
    lane: str
    pid: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lay one nested dictionary over another; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = merge(old, value) if both and isinstance(old, dict) else value
    return merged


def http_get(port: int, path: str, headers: dict[str, str] | None = None) -> Answer:
    """Send one GET; blocks for five seconds at most."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        body = response.read()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, body)
    finally:
        connection.close()


class Cluster:
    """One `ws-cluster up`; an async context manager that is ready inside the block."""

    def __init__(
        self,
        directory: Path,
        *,
        workers: int = 2,
        config: dict[str, Any] | None = None,
        redis_urls: tuple[str, ...] = (),
        has_nginx: bool = True,
        source: Path = REPOSITORY,
        modules: Path | None = None,
    ) -> None:
        self.directory = directory
        self.workers_wanted = workers
        self.config = merge(BASE_CONFIG, config or {})
        self.redis_urls = redis_urls
        self.has_nginx = has_nginx
        self.source = source
        self.modules = modules
        self.port = free_ports(workers + SPARE_SLOTS + 2)
        self.admin_port = self.port + 1
        self.worker_port_base = self.port + 2
        self.log_path = directory / "cluster.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._seen: set[int] = set()

    # -- start and stop ----------------------------------------------------------------------------------

    def command(self) -> list[str]:
        """The command line."""
        directory = self.directory
        words = [sys.executable, "-m", "cluster", "up", "--config", str(directory / "config.json")]
        words += ["--workers", str(self.workers_wanted), "--host", "127.0.0.1"]
        words += ["--port", str(self.port), "--admin-port", str(self.admin_port)]
        words += ["--worker-port-base", str(self.worker_port_base)]
        words += ["--data-dir", str(directory / "data")]
        for url in self.redis_urls:
            words += ["--redis-url", url]
        return words if self.has_nginx else [*words, "--no-nginx"]

    def spawn(self) -> None:
        """Start the program without waiting."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "config.json").write_text(json.dumps(self.config, indent=1))
        path = os.pathsep.join(str(one) for one in (self.source, self.modules) if one is not None)
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.source,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def start(self, within: float = READY_WITHIN) -> None:
        """Start and return when /ready says 200 and every worker serves.

        Raises:
            AssertionError: it ended or was not ready in time; carries the log's tail.
        """
        self.spawn()
        deadline = time.monotonic() + within
        while not await self.is_ready():
            if not self.is_running or time.monotonic() > deadline:
                await self.stop()
                raise AssertionError(f"the cluster did not become ready\n{self.log_tail()}")
            await asyncio.sleep(0.05)
        self._seen.update(family(self.pid))
        # One worker is enough for /ready; all clients that connected now would get that worker.
        await self.shows("app_workers_alive", self.workers_wanted, within)

    async def stop(self, within: float = 20.0) -> int | None:
        """Drain and stop with SIGTERM; processes that are left are killed. Returns the exit code."""
        process = self.process
        if process is None:
            return None
        self._seen.update(family(process.pid))
        code: int | None = None
        try:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(process.wait, within)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            end(sorted(self._seen))
            self.process = None
        return code

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()
        if error is not None:
            error.add_note(f"-- the cluster's log --\n{self.log_tail()}")

    # -- observing ------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The supervisor's pid."""
        assert self.process is not None
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """True while the supervisor lives."""
        return self.process is not None and self.process.poll() is None

    @property
    def client_port(self) -> int:
        """The port for clients: nginx, or without it the first worker."""
        return self.port if self.has_nginx else self.worker_port_base

    def worker_port(self, slot: int) -> int:
        """One worker's own port."""
        return self.worker_port_base + slot

    def log(self) -> str:
        """All that the program wrote so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = 60) -> str:
        """The end of the log."""
        return "\n".join(self.log().splitlines()[-lines:])

    def workers(self) -> list[Worker]:
        """The worker processes alive now, by slot and lane."""
        found = []
        for pid in children(self.pid):
            words = command_line(pid)
            if "worker" in words and "--slot" in words and is_running(pid):
                slot = int(words[words.index("--slot") + 1])
                found.append(Worker(slot, words[words.index("--lane") + 1], pid))
        self._seen.update(worker.pid for worker in found)
        return sorted(found, key=lambda worker: (worker.slot, worker.lane))

    def child(self, name: str) -> int:
        """The pid of the nginx or valkey child."""
        for pid in children(self.pid):
            # nginx and Valkey write more than a path into their first word.
            program = (command_line(pid) or [""])[0].split(" ")[0]
            if Path(program).name.startswith(name) and is_running(pid):
                self._seen.add(pid)
                return pid
        raise LookupError(f"no child of the supervisor is called {name}")

    async def get(self, path: str, port: int | None = None) -> Answer:
        """Send a GET to the admin port, or to another."""
        return await asyncio.to_thread(http_get, port or self.admin_port, path)

    async def is_ready(self) -> bool:
        """True when /ready answers 200."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return (await self.get("/ready")).status == 200
        return False

    async def metrics(self) -> Metrics:
        """Scrape /metrics once."""
        answer = await self.get("/metrics")
        assert answer.status == 200, answer
        return parse_metrics(answer.body.decode())

    async def shows(self, name: str, value: float, within: float = 10.0, **labels: str) -> Metrics:
        """Scrape until a family's sum has this value; workers flush about once a second."""
        last = await self.metrics()
        deadline = time.monotonic() + within
        while last.total(name, **labels) != value:
            shown = f"{name}{labels or ''} is {last.total(name, **labels)}, not {value}"
            assert time.monotonic() < deadline, f"within {within} s {shown}"
            await asyncio.sleep(0.1)
            last = await self.metrics()
        return last

    # -- acting ------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """Send a signal to the supervisor."""
        os.kill(self.pid, number)

    async def roll(self, within: float = 60.0) -> float:
        """Replace every worker (HUP) and return when all are new and ready; returns the seconds."""
        old = {worker.pid for worker in self.workers()}
        started = time.monotonic()
        self.signal(signal.SIGHUP)

        def all_new() -> bool:
            now = {worker.pid for worker in self.workers()}
            return not now & old and len(now) == self.workers_wanted

        await until(all_new, within, "every worker is replaced")
        await until_async(self.is_ready, within, "the cluster is ready after the roll")
        return time.monotonic() - started
