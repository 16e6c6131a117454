"""Runs `ws-cluster monitoring up`, and asks it, its receiver and the monitor commands.

Guarantee: after `stop` no process that it started is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.harness.cluster import REPOSITORY, http_get
from tests.harness.processes import children, command_line, end, family, free_ports, is_running
from tests.harness.waiting import until, until_async

READY_WITHIN = 60.0
CHILDREN = ("prometheus", "alertmanager", "node_exporter", "receiver", "tracker")


class Monitoring:
    """One `monitoring up`, which is ready inside the block."""

    def __init__(
        self,
        directory: Path,
        *,
        apps: tuple[int, ...],
        compress: float = 1.0,
        load_tests: tuple[int, ...] = (),
    ) -> None:
        self.directory = directory
        self.data_dir = directory / "monitoring"
        self.compress = compress
        first = free_ports(5)
        self.prometheus, self.alertmanager, self.node_exporter = range(first, first + 3)
        self.receiver, self.tracker = first + 3, first + 4
        self.apps = apps
        self.load_tests = load_tests
        self.process: subprocess.Popen[bytes] | None = None
        self._seen: set[int] = set()

    # --- start and stop ------------------------------------------------------------------------------

    def command(self) -> list[str]:
        words = [sys.executable, "-m", "cluster", "monitoring", "up"]
        words += ["--prometheus-port", str(self.prometheus)]
        words += ["--alertmanager-port", str(self.alertmanager)]
        words += ["--node-exporter-port", str(self.node_exporter)]
        words += ["--receiver-port", str(self.receiver), "--data-dir", str(self.data_dir)]
        words += ["--tracker-port", str(self.tracker), "--compress", f"{self.compress:g}"]
        for one in self.load_tests:
            words += ["--load-test", f"127.0.0.1:{one}"]
        for app in self.apps:
            words += ["--app", f"127.0.0.1:{app}"]
        return words

    def spawn(self, output: int | None = None) -> None:
        """Start it; its output goes to its log, or to a descriptor."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=REPOSITORY,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log if output is None else output,
                stderr=log,
                start_new_session=True,
            )

    async def start(self) -> None:
        self.spawn()
        assert self.process is not None
        process = self.process
        await until(
            lambda: process.poll() is not None or "monitoring is ready" in self.log(),
            READY_WITHIN,
            "the monitoring is ready",
        )
        assert process.poll() is None, self.log()
        self._seen |= set(family(process.pid))

    async def stop(self, number: int = signal.SIGINT) -> int | None:
        """End it as Ctrl-C does; returns its exit code."""
        process = self.process
        if process is None:
            return None
        self._seen |= set(family(process.pid))
        self.process = None
        code: int | None = None
        try:
            process.send_signal(number)
            code = await asyncio.to_thread(process.wait, 20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            self.left = [pid for pid in self._seen if is_running(pid)]
            end(sorted(self._seen))
        return code

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()
        if error is not None:
            error.add_note(f"-- the monitoring's log --\n{self.log()}\n{self.child_log('tracker')}")

    # --- questions -------------------------------------------------------------------------

    @property
    def log_path(self) -> Path:
        return self.directory / "monitoring.log"

    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    def child_log(self, name: str) -> str:
        path = self.data_dir / "log" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def child(self, name: str) -> int:
        """The process id of a child."""
        wanted = {"tracker": "keep", "receiver": "receive"}.get(name, name.replace("_", "-"))
        assert self.process is not None
        for pid in children(self.process.pid):
            words = command_line(pid)
            called = {Path(words[0]).name.removeprefix("prometheus-")} if words else set()
            if wanted in called | set(words[1:5]):
                return pid
        raise LookupError(name)

    def monitor(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `ws-cluster monitor …` on this machine."""
        return subprocess.run(
            [sys.executable, "-m", "cluster", "monitor", *words, "--data-dir", str(self.data_dir)],
            cwd=REPOSITORY,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    async def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(self.monitor, *words)

    async def get(self, path: str, port: int | None = None) -> Any:
        """JSON from the receiver, or from another port."""
        answer = await asyncio.to_thread(http_get, port or self.receiver, path)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    async def firing(self, name: str) -> bool:
        """Whether Prometheus says that an alert fires."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            data = (await self.get("/api/v1/alerts", self.prometheus))["data"]
            return any(
                a["labels"]["alertname"] == name and a["state"] == "firing" for a in data["alerts"]
            )
        return False

    async def received(self, kind: str, alert: str, after: int = 0) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self.get(
            f"/received?kind={kind}&alert={alert}&after={after}"
        )
        return found

    async def arrives(
        self, kind: str, alert: str, pattern: str, within: float, after: int = 0
    ) -> dict[str, Any]:
        """Wait for a notification whose text matches; returns it."""
        found: list[dict[str, Any]] = []

        async def is_there() -> bool:
            every = await self.received(kind, alert, after)
            found[:] = [e for e in every if re.search(pattern, text_of(e))]
            return bool(found)

        await until_async(is_there, within, f"{kind} receives {alert}: {pattern}")
        return found[0]


def text_of(entry: dict[str, Any]) -> str:
    """The text of a notification, after its channel or action."""
    document = entry["document"]
    head = document.get("channel") or document.get("event_action") or ""
    parts = [document.get("text"), (document.get("payload") or {}).get("summary")]
    parts += [attachment.get("title") for attachment in document.get("attachments", ())]
    return " ".join([head, *(part for part in parts if part)])


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
