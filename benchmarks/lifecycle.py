"""What is not a load: how soon the cluster is ready, and what worker respawns leave behind."""

import http.client
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.paths import REPOSITORY
from benchmarks.processes import HOST, Process, ServerFailed
from benchmarks.servers import Valkey, start_cluster, sum_of_family, wait_all_ready, workers_of

MANY_WORKERS = 8
SCRAPES = 20
OPENED = "app_connections_opened_total"
ACTIVE = "app_active_connections"
CONNECTIONS = 104


@dataclass(frozen=True, slots=True)
class Respawns:
    """State before and after `count` workers were replaced."""

    count: int
    killed: int
    files_before: int
    files_after: int
    opened_expected: float
    opened: float
    active: float
    scrape_ms: float
    scrape_max_ms: float
    seconds: float


def start_to_ready(scratch: Path, times: int) -> list[float]:
    """Return how long 4 workers, nginx and an embedded Valkey took until all were ready."""
    return [_start_once(scratch) for _ in range(times)]


def _start_once(scratch: Path) -> float:
    begun = time.monotonic()
    process, _, admin_port, _ = start_cluster(scratch, workers=4, nginx=True, core=None)
    try:
        wait_all_ready(process, admin_port, 4)
        return time.monotonic() - begun
    finally:
        process.stop(seconds=15)


def respawn(scratch: Path, store: Valkey, wanted: int) -> Respawns:
    """Replace `wanted` workers of eight, one of each slot by kill -9 and the rest by rolling.

    The restart budget of a slot (5 a minute) forbids to kill them all.
    """
    process, _, admin_port, first = start_cluster(
        scratch, workers=MANY_WORKERS, redis_url=store.url, core=None
    )
    try:
        wait_all_ready(process, admin_port, MANY_WORKERS)
        ports = list(range(first, first + MANY_WORKERS))
        # Both lanes of every slot must have been used once before files are counted.
        _roll(process, admin_port)
        _connect(ports)
        # What a worker has not flushed yet (about a second) dies with a kill -9: wait for it.
        _wait_settled(admin_port, CONNECTIONS)
        before = _files(process)
        begun = time.monotonic()
        _kill_each(process, admin_port)
        replaced = MANY_WORKERS
        while replaced < wanted:
            _roll(process, admin_port)
            replaced += MANY_WORKERS
        seconds = time.monotonic() - begun
        _connect(ports)
        return _after(process, admin_port, replaced, before, seconds)
    finally:
        process.stop(seconds=15)


def _after(
    process: Process, admin_port: int, replaced: int, before: int, seconds: float
) -> Respawns:
    expected = 2 * CONNECTIONS
    _wait_settled(admin_port, expected)
    scrapes = [_scrape(admin_port) for _ in range(SCRAPES)]
    durations = [duration for duration, _, _ in scrapes]
    return Respawns(
        count=replaced,
        killed=MANY_WORKERS,
        files_before=before,
        files_after=_files(process),
        opened_expected=expected,
        opened=scrapes[-1][1],
        active=scrapes[-1][2],
        scrape_ms=median(durations),
        scrape_max_ms=max(durations),
        seconds=seconds,
    )


def _wait_settled(admin_port: int, expected: int) -> None:
    """Wait until each worker has written down what was opened and, once a second, what is open.

    A wrong sum shows in the report, not here.
    """
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        _, opened, active = _scrape(admin_port)
        if opened >= expected and not active:
            return
        time.sleep(0.2)


def _roll(process: Process, admin_port: int) -> None:
    old = set(workers_of(process))
    process.signal(signal.SIGHUP)
    _wait_replaced(process, old)
    wait_all_ready(process, admin_port, MANY_WORKERS)


def _kill_each(process: Process, admin_port: int) -> None:
    for pid in workers_of(process):
        subprocess.run(["kill", "-KILL", str(pid)], check=True)
        _wait_replaced(process, {pid})
    wait_all_ready(process, admin_port, MANY_WORKERS)


def _wait_replaced(process: Process, old: set[int]) -> None:
    def is_replaced() -> bool:
        now = set(workers_of(process))
        return len(now) == MANY_WORKERS and not now & old

    process.wait_until(is_replaced, "replacement of its workers", seconds=90)


def _files(process: Process) -> int:
    """Count the metric files, in the directory that a worker was given."""
    environment = Path(f"/proc/{workers_of(process)[0]}/environ").read_bytes().split(b"\0")
    name = b"PROMETHEUS_MULTIPROC_DIR="
    folders = [entry[len(name) :] for entry in environment if entry.startswith(name)]
    if not folders:
        raise ServerFailed("a worker was started without PROMETHEUS_MULTIPROC_DIR")
    return len(list(Path(folders[0].decode()).glob("*.db")))


def _connect(ports: Sequence[int]) -> None:
    command = [
        sys.executable, "-m", "benchmarks.load", "idle", "--dialect", "centrifuge",
        "--connections", str(CONNECTIONS - 100), "--window", "0.2",
    ]  # fmt: skip
    for port in ports:
        command += ["--port", str(port)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise ServerFailed(done.stderr.strip())


def _scrape(admin_port: int) -> tuple[float, float, float]:
    """Return milliseconds, connections ever opened, connections open now."""
    begun = time.perf_counter()
    connection = http.client.HTTPConnection(HOST, admin_port, timeout=10)
    connection.request("GET", "/metrics")
    body = connection.getresponse().read()
    took = (time.perf_counter() - begun) * 1000
    connection.close()
    return took, sum_of_family(body, OPENED), sum_of_family(body, ACTIVE)
