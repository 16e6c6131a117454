"""`ws-cluster capacity`: measures the capacity of one machine, for the docs and for the dashboards.

Rules
- It measures a cluster of its own (or `--target` with its `--admin-url`) under the load test: bytes
  per connection, messages per second per core, and the knee of a ramp.
- Server figures come from the cluster's own /metrics: CPU is the workers', memory is the workers'.
- The load runs on the same machine unless a target is given; its CPU use is reported with the knee,
  because a load generator at its own limit finds its own knee.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cluster.alerting.http import HttpService
from cluster.errors import ExitError
from cluster.terminal_text import print_lines
from loadtest.drilling import undo
from loadtest.drilling.arguments import Parser
from loadtest.drilling.environment import machine
from loadtest.drilling.environment.cluster import is_ready
from loadtest.drilling.environment.drill_processes import ROOT, DrillProcess, free_ports, ws_cluster
from loadtest.drilling.environment.load import Load, LoadFailed, RunningLoad
from loadtest.drilling.undo import UndoLog

_EXITS: Final = (
    "exit codes: 0 measured, 3 the cluster cannot start, 69 a program is missing, 78 bad input"
)
#: Where the rules of another measurement begin in the same file.
OTHERS_BEGIN: Final = "  # Written by"
_SETTLE_SECONDS: Final = 6.0
_BOOT_SECONDS: Final = 60.0
_CHANNEL: Final = {
    "history_size": 100,
    "history_ttl": "5m",
    "allow_positioning": True,
    "allow_recovery": True,
}


@dataclass(frozen=True, slots=True)
class Capacity:
    """What was measured.

    Attributes:
        bytes_per_connection: growth of the workers' memory per idle connection.
        messages_per_second_per_core: messages out per second of worker CPU, one channel for all.
        knee_users: listeners of one channel at 20 publications a second before the ramp broke.
        knee: why it broke; empty if it never did.
        load_cores: CPU that the load generator used, on average over the ramp, in cores.
        load_ms_per_user_second: CPU of the load generator for one listener and second.
        connections_by_files: what the file limit of a worker allows.
        connections_by_memory: what the machine's memory allows a worker, all others equal.
    """

    workers: int
    bytes_per_connection: float
    messages_per_second_per_core: float
    knee_users: int
    knee: str
    load_cores: float
    load_ms_per_user_second: float
    connections_by_files: int
    connections_by_memory: int

    @property
    def connections_per_worker(self) -> int:
        """Whichever ends first."""
        return min(self.connections_by_files, self.connections_by_memory)


def main(words: Sequence[str]) -> int:
    """Measure and write; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(words)
    if bool(arguments.target) != bool(arguments.admin_url):
        parser.error("--target and --admin-url belong together: give both")
    try:
        with UndoLog() as undo_log:
            found = _Measuring(arguments, undo_log).run()
    except (ExitError, LoadFailed) as error:
        print_lines(f"ws-cluster capacity: {error}", sys.stderr)
        return getattr(error, "exit_code", 3)
    described = machine.describe()
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    for path, text in (
        (arguments.docs, page(found, described, when)),
        (arguments.rules, rules(found, described, when) + other_groups(arguments.rules)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {path}\n")
    sys.stdout.write(json.dumps(asdict(found), indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="ws-cluster capacity",
        description="Measure the capacity of this machine, and write it to the docs and to recording rules.",
        epilog=_EXITS,
    )
    add = parser.add_argument
    add("--workers", type=int, default=2, metavar="N", help="of the cluster it starts (2)")
    add("--idle", type=int, default=2000, metavar="N", help="idle connections (2000)")
    add(
        "--most",
        type=int,
        default=2400,
        metavar="N",
        help="listeners at the end of the ramp (2400)",
    )
    add("--step-seconds", type=float, default=8.0, metavar="S", help="length of a step (8)")
    add("--target", metavar="URL", help="ws://… of a running cluster, instead of one of its own")
    add("--admin-url", metavar="URL", help="its admin port; needed with --target")
    add("--docs", type=Path, default=ROOT / "docs/reference/capacity.md", metavar="FILE")
    add("--rules", type=Path, default=ROOT / "docker/capacity.yml", metavar="FILE")
    return parser


# --- measuring -----------------------------------------------------------------------------


class _Measuring:
    def __init__(self, arguments: argparse.Namespace, undo_log: UndoLog) -> None:
        self._arguments = arguments
        self._undo_log = undo_log
        self._folder = Path(tempfile.mkdtemp(prefix="ws-capacity-"))
        undo_log.note(undo.removed(self._folder))
        self._host = arguments.target or ""
        self._admin = HttpService("the cluster", (arguments.admin_url or "").rstrip("/"))
        self._count = 0

    def run(self) -> Capacity:
        if not self._host:
            self._start_cluster()
        each = self._bytes_per_connection(self._arguments.idle)
        pace, summary = self._ramp()
        workers = int(self._sum("app_workers_alive"))
        memory = self._sum("app_memory_limit_bytes") * 0.8 / workers
        return Capacity(
            workers=workers,
            bytes_per_connection=round(each),
            messages_per_second_per_core=round(pace),
            knee_users=int(summary.get("capacity_users", 0)),
            knee=str(summary.get("knee", "")),
            load_cores=round(summary.get("cpu_seconds", 0) / (summary.get("seconds") or 1), 2),
            load_ms_per_user_second=summary.get("cpu_ms_per_user_second") or 0.0,
            connections_by_files=int(self._sum("app_connection_capacity") / workers),
            connections_by_memory=int(memory / max(1.0, each)),
        )

    def _bytes_per_connection(self, idle: int) -> float:
        """The memory that each idle connection adds, after other connections have used what was free since the boot."""
        first, connections, memory = self._held(max(1, idle // 5))
        second, more, memory_with_more = self._held(idle)
        for load in (first, second):
            load.end()
        return (memory_with_more - memory) / max(1.0, more - connections)

    def _held(self, idle: int) -> tuple[RunningLoad, float, float]:
        """Add idle connections; returns their load, all connections, and the workers' memory."""
        load = self._load(Load("idle", users=idle, spawn_rate=250))
        load.wait_until_connected(time.sleep)
        time.sleep(_SETTLE_SECONDS)
        connections = self._sum("app_active_connections")
        return load, connections, self._sum("app_worker_resident_memory_bytes")

    def _ramp(self) -> tuple[float, dict[str, Any]]:
        """Messages per second of worker CPU over the ramp, and the load test's own summary."""
        most, seconds = self._arguments.most, self._arguments.step_seconds
        options = [
            "--shape",
            "ramp",
            "--channels",
            "1",
            "--rate",
            "20",
            "--sample",
            "20",
            "--step-seconds",
        ]
        began = self._sum("app_messages_total", 'direction="out"'), self._cpu()
        load = self._load(
            Load("throughput", users=most, spawn_rate=200, options=(*options, f"{seconds:g}"))
        )
        load.wait_until_ended(seconds * 30)
        sent = self._sum("app_messages_total", 'direction="out"') - began[0]
        return sent / max(0.001, self._cpu() - began[1]), load.ledger()

    def _cpu(self) -> float:
        return self._sum("app_worker_cpu_seconds_total")

    def _load(self, load: Load) -> RunningLoad:
        self._count += 1
        name = f"capacity-{self._count}"
        return RunningLoad(
            load, host=self._host, folder=self._folder, name=name, undo_log=self._undo_log
        )

    def _sum(self, name: str, label: str = "") -> float:
        """The sum of a metric family in the cluster's own metrics."""
        total = 0.0
        for line in self._admin.text("/metrics").splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and label in series:
                total += float(value)
        return total

    def _start_cluster(self) -> None:
        port = free_ports(self._arguments.workers + 2)
        config = self._folder / "config.json"
        document = {
            "client": {"insecure": True, "command_rate_limit": 0},
            "channel": {"without_namespace": _CHANNEL},
        }
        config.write_text(json.dumps(document), encoding="utf-8")
        command = ws_cluster(
            "up", "--config", str(config), "--workers", str(self._arguments.workers)
        )
        command += ["--host", "127.0.0.1", "--port", str(port), "--admin-port", str(port + 1)]
        command += ["--worker-port-base", str(port + 2), "--data-dir", str(self._folder / "data")]
        cluster = DrillProcess("cluster", command, folder=self._folder, undo_log=self._undo_log)
        self._host = f"ws://127.0.0.1:{port}/connection/websocket"
        self._admin = HttpService("the cluster", f"http://127.0.0.1:{port + 1}")
        cluster.wait_until(lambda: is_ready(self._admin.url), _BOOT_SECONDS)


# --- writing -------------------------------------------------------------------------------


def _machine_words(machine: dict[str, Any]) -> str:
    gib = machine["memory_bytes"] / (1 << 30)
    return (
        f"{machine['cores']} cores ({machine['processor']}), {gib:.0f} GiB, Linux"
        f" {machine['kernel']}, Python {machine['python']}"
    )


def page(found: Capacity, machine: dict[str, Any], when: str) -> str:
    """The page for the docs."""
    knee = found.knee or "no knee up to the end of the ramp"
    return f"""# Capacity, measured

<!-- Written by `ws-cluster capacity`: measure again instead of editing it. -->

{when}, {found.workers} workers, load on the same machine: {_machine_words(machine)}.

| what | measured |
| --- | --- |
| memory per idle connection | {found.bytes_per_connection / 1024:.1f} KiB |
| messages out per second and core of worker CPU (20 publications/s to all listeners of one channel) | {found.messages_per_second_per_core:,} |
| listeners of one channel before the ramp broke | {found.knee_users:,} |
| the knee | {knee} |
| cores that the load generator itself used, on average over the ramp | {found.load_cores} |
| CPU of the load generator for each listener (20 publications/s), per second | {found.load_ms_per_user_second} ms |
| connections per worker by its file limit | {found.connections_by_files:,} |
| connections per worker by memory (80 % of it, shared by {found.workers}) | {found.connections_by_memory:,} |
| **connections per worker** | **{found.connections_per_worker:,}** |

The knee is the whole machine's: load generator and cluster share its cores. On machines of their own,
run the load test elsewhere and give `--target` and `--admin-url`.

The figures stand as recording rules in docker/capacity.yml, for dashboards that compare what is with
what can be. Beside them stand those of 100,000 connections that were held through nginx:
[benchmarks/results/hold.md](../../benchmarks/results/hold.md).
"""


def rules(found: Capacity, machine: dict[str, Any], when: str) -> str:
    """The constants as recording rules."""
    values = {
        "app_capacity_connections_per_worker": found.connections_per_worker,
        "app_capacity_messages_per_second_per_core": found.messages_per_second_per_core,
        "app_capacity_bytes_per_connection": found.bytes_per_connection,
        "app_capacity_knee_users": found.knee_users,
    }
    lines = "\n".join(
        f"      - record: {name}\n        expr: vector({value:g})" for name, value in values.items()
    )
    return f"""# The first group was written by `ws-cluster capacity` on {when}: measure again instead of editing it.
# {_machine_words(machine)}; {found.workers} workers, load on the same machine.
groups:
  - name: websocket_capacity_constants
    interval: 1m
    rules:
{lines}
"""


def other_groups(file: Path) -> str:
    """The groups of the file that other measurements have written, as they are."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    _, begin, others = text.partition(f"\n{OTHERS_BEGIN}")
    return f"{OTHERS_BEGIN}{others}" if begin else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
