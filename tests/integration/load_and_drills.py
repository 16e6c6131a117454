"""A load test and drills that serve their metrics, for the length of a block."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from tests.harness.cluster import REPOSITORY
from tests.harness.waiting import until_async
from tests.integration.monitoring import Monitoring, environment


@contextmanager
def _running(words: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that gets SIGTERM in the end, and after its last scrape has ended."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            words,
            cwd=REPOSITORY,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@asynccontextmanager
async def load_test(
    folder: Path, host_port: int, metrics_port: int, users: int = 8
) -> AsyncIterator[Path]:
    """Locust with the scenario `steady`; gives its log."""
    log = folder / "locust.log"
    words = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless"]
    words += ["--only-summary", "--scenario", "steady", "-u", str(users), "-r", "20"]
    words += ["--host", f"ws://127.0.0.1:{host_port}"]
    words += ["--metrics-listen", f"127.0.0.1:{metrics_port}"]
    with _running(words, log):
        yield log


@asynccontextmanager
async def drills(folder: Path, metrics_port: int, *alerts: str) -> AsyncIterator[Path]:
    """Drills in an environment of their own; gives their log."""
    log = folder / "drills.log"
    words = [sys.executable, "-m", "cluster", "drill", *alerts]
    words += ["--stages", "1", "--report", str(folder / "drill-report")]
    words += ["--metrics-listen", f"127.0.0.1:{metrics_port}"]
    with _running(words, log):
        yield log


async def acknowledge(monitoring: Monitoring, alert: str, within: float) -> None:
    """Acknowledge an alert as soon as it fires, with the operator's command."""
    words = ("ack", alert, "--note", "looked at", "--author", "a test")
    await until_async(
        _asked_once_firing(monitoring, alert, words), within, f"{alert} is acknowledged"
    )


async def resolve(monitoring: Monitoring, alert: str, within: float) -> None:
    """Resolve the incident of an alert by hand as soon as it fires."""
    words = ("resolve", alert, "--note", "mended")
    await until_async(_asked_once_firing(monitoring, alert, words), within, f"{alert} is resolved")


def _asked_once_firing(
    monitoring: Monitoring, alert: str, words: Sequence[str]
) -> Callable[[], Awaitable[bool]]:
    async def is_done() -> bool:
        with contextlib.suppress(OSError):
            if _has_recorded(monitoring, alert):
                return (await monitoring.ask(*words)).returncode == 0
        return False

    return is_done


def _has_recorded(monitoring: Monitoring, alert: str) -> bool:
    """Whether the tracker has seen an alert fire: an incident resolved before that has never fired."""
    whole, _, _ = monitoring.child_log("tracker").rpartition("\n")
    lines = map(json.loads, whole.splitlines())
    return any(one.get("alert") == alert and one.get("kind") == "firing" for one in lines)
