"""Starts a cluster as a separate process and queries it from outside, as an operator would."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.harness import processes

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 30.0


def free_ports(count: int) -> list[int]:
    """Adjacent free ports."""
    first = processes.free_ports(count)
    return list(range(first, first + count))


def eventually(holds: Callable[[], Any], what: str, seconds: float = TIMEOUT_SECONDS) -> Any:
    """Call `holds` until its result is true; returns the result."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = holds()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"after {seconds} s still not: {what}")


class Running:
    """One supervisor and its children."""

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 2,
        nginx: bool = False,
        embedded: bool = False,
        policy: dict[str, float] | None = None,
        metrics: bool = False,
        options: dict[str, Any] | None = None,
        file: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        ports = free_ports(workers + 4)
        self.public, self.admin, self.base = ports[0], ports[1], ports[2]
        self.data_dir = folder / "data"
        self.mode = folder / "mode"
        self.options: dict[str, Any] = {
            "client.insecure": True,
            "server.host": "127.0.0.1",
            "server.port": self.public,
            "server.admin_port": self.admin,
            "server.worker_port_base": self.base,
            "server.workers": workers,
            "server.nginx": nginx,
            "server.data_dir": str(self.data_dir),
            "log.level": "debug",
            **({} if embedded else {"broker.redis_urls": ["redis://127.0.0.1:1"]}),
            **(options or {}),
        }
        self.policy = {"first_seconds": 0.05, "longest_seconds": 1.0, "budget": 1000} | (
            policy or {}
        )
        self.file = file
        self.environment = os.environ | {"FAKE_WORKER_DIR": str(folder), "PYTHONPATH": str(ROOT)}
        if metrics:
            self.environment["FAKE_WORKER_METRICS"] = "1"
        self.environment |= environment or {}
        self.program_prefix = [sys.executable]
        self.process: subprocess.Popen[bytes] | None = None
        self.family: set[int] = set()

    # --- life ----------------------------------------------------------------------------

    def start(self) -> Running:
        given: dict[str, Any] = {"options": self.options, "policy": self.policy}
        if self.file:
            given["file"] = str(self.file)
        script = str(ROOT / "tests/integration/fake_cluster.py")
        program = [*self.program_prefix, script, json.dumps(given)]
        with (self.folder / "out").open("ab") as out, (self.folder / "err").open("ab") as err:
            self.process = subprocess.Popen(
                program, stdout=out, stderr=err, env=self.environment, cwd=ROOT
            )
        return self

    def ready(self) -> Running:
        self.start()
        eventually(self.is_ready_or_dead, "the cluster is ready")
        assert self.process is not None
        assert self.process.poll() is None, self.errors()
        eventually(lambda: self.events("cluster_started"), "the start is logged")
        self.note_family()
        return self

    def is_ready_or_dead(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None or self.get("/ready")[0] == 200

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        self.note_family()
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self, seconds: float = TIMEOUT_SECONDS) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def close(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    # --- queries -------------------------------------------------------------------------

    def note_family(self) -> set[int]:
        assert self.process is not None
        if self.process.poll() is None:
            below = psutil.Process(self.process.pid).children(recursive=True)
            self.family |= {child.pid for child in below}
        return self.family

    def survivors(self) -> list[int]:
        return [pid for pid in self.family if psutil.pid_exists(pid) and _runs(pid)]

    def get(
        self, path: str, *, port: int | None = None, agent: str = "test", timeout: float = 10
    ) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.admin, timeout=timeout)
        try:
            connection.request("GET", path, headers={"User-Agent": agent})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), dict(answer.getheaders())
        except OSError as error:
            return 0, str(error), {}
        finally:
            connection.close()

    def slot(self, number: int) -> tuple[int, str, dict[str, str]]:
        return self.get("/", port=self.base + number)

    def lane(self, number: int) -> str:
        status, body, _ = self.slot(number)
        return body.split()[0] if status == 200 else ""

    def worker_pid(self, number: int) -> int:
        status, body, _ = self.slot(number)
        assert status == 200, body
        return int(body.split()[1])

    def new_pid(self, number: int, old: int) -> int:
        """The process id of a slot's worker if it serves and is not the old one; else 0."""
        status, body, _ = self.slot(number)
        pid = int(body.split()[1]) if status == 200 else 0
        return pid if pid != old else 0

    def metric(self, name: str, agent: str = "test") -> float | None:
        pattern = re.compile(rf"^{re.escape(name)} (\S+)$", re.MULTILINE)
        found = pattern.search(self.get("/metrics", agent=agent)[1])
        return float(found[1]) if found else None

    def events(self, name: str) -> list[dict[str, Any]]:
        found = []
        for line in (self.folder / "out").read_text().splitlines(keepends=True):
            # The last line may be in the middle of being written.
            if line.startswith("{") and line.endswith("\n"):
                event = json.loads(line)
                if event.get("event") == name:
                    found.append(event)
        return found

    def errors(self) -> str:
        return (self.folder / "err").read_text()


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
