"""`python -m benchmarks.nginx_sockets`: what the embedded nginx costs over unix sockets and over TCP.

For each measurement a cluster of one worker is started on the first core, with its nginx. For TCP, nginx's
configuration is written anew with the worker's port and reloaded before the first client connects: the
worker accepts on both. Writes benchmarks/results/nginx_sockets.md.
"""

import argparse
import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.load.measure import Result
from benchmarks.micro.comparison import machine
from benchmarks.paths import RESULTS
from benchmarks.proc import command_line
from benchmarks.processes import HOST, Process, ServerFailed
from benchmarks.rounds import generate
from benchmarks.servers import (
    Running,
    Valkey,
    nginx_of,
    start_cluster,
    valkey,
    wait_all_ready,
    workers_of,
)

TCP, UNIX = "TCP", "unix sockets"
WAYS = (TCP, UNIX)
ROUNDS = 5
_UNIX = re.compile(r'server "unix:[^"]*"')


@dataclass(frozen=True, slots=True)
class Load:
    title: str
    run: str
    options: Sequence[str]


LOADS = (
    Load("1,000 subscribers, 32 publications under way", "broadcast", ("--window", "4")),
    Load(
        "1,000 subscribers, 100 publishes/s",
        "broadcast",
        ("--rate", "100", "--window", "6", "--awake"),
    ),
    Load("200 channels × 5 subscribers, every subscriber publishes", "crowd", ("--window", "4")),
    Load(
        "waves of 500: connect, subscribe, session",
        "connect",
        ("--connections", "500", "--window", "4"),
    ),
)

HEAD = """\
# nginx and its workers: unix sockets against TCP

Written by `python -m benchmarks.nginx_sockets`; the decision is
[docs/adr/0014](../../docs/adr/0014-unix-sockets-behind-nginx.md). One worker behind its nginx, both on the first core,
clients and Valkey on the last. CPU time (user and system) for each delivery or connect: medians of {rounds} rounds
in which both ways take turns; *lowest to highest* is of both processes together.

| load | way | worker µs | nginx µs | both µs | lowest to highest | against TCP | p99 ms |
| --- | --- | --: | --: | --: | --: | --: | --: |
"""


def measure(load: Load, way: str, store: Valkey, scratch: Path) -> Result:
    """Start a cluster, load it, and stop it.

    Raises:
        ServerFailed: if it does not start, or loses connections or deliveries.
    """
    process, public, admin_port, worker_port = start_cluster(
        scratch, workers=1, nginx=True, redis_url=store.url
    )
    try:
        wait_all_ready(process, admin_port, 1)
        if way == TCP:
            _use_tcp(process, worker_port)
        watched = {"server": workers_of(process), "nginx": nginx_of(process)}
        running = Running(process, "centrifuge", [public], watched, admin_port)
        result = generate(running, load.run, list(load.options), store)
    finally:
        process.stop()
    if result.closed or result.lost or not result.deliveries:
        raise ServerFailed(f"{result.closed} closed, {result.lost} lost: {result.reasons}")
    return result


def _use_tcp(process: Process, port: int) -> None:
    """Have nginx reach the worker over TCP, and wait until its old processes have ended."""
    conf = configuration_of(process)
    text, count = _UNIX.subn(f"server {HOST}:{port}", conf.read_text())
    if count != 1:
        raise ServerFailed(f"{count} unix sockets in {conf}")
    conf.write_text(text)
    reload_nginx(process)


def configuration_of(process: Process) -> Path:
    """The nginx.conf of a cluster."""
    master = nginx_of(process)[0]
    # nginx writes its whole command line as one word.
    words = command_line(master)[0].split()
    return Path(words[words.index("-c") + 1])


def reload_nginx(process: Process) -> None:
    """Have nginx read its configuration again, and wait until its old processes have ended."""
    master, *old = nginx_of(process)
    os.kill(master, signal.SIGHUP)

    def is_reloaded() -> bool:
        processes = nginx_of(process)[1:]
        return bool(processes) and not set(processes) & set(old)

    process.wait_until(is_reloaded, "reloaded nginx")


def _us(result: Result, *names: str) -> float:
    return sum(result.cpu_seconds[name] for name in names) / result.deliveries * 1e6


def _row(load: Load, way: str, results: Sequence[Result], base: Sequence[Result]) -> str:
    both = [_us(one, "server", "nginx") for one in results]
    over_tcp = median(_us(one, "server", "nginx") for one in base)
    digits = 3 if median(both) < 10 else 1
    cells = [
        load.title, way,
        f"{median(_us(one, 'server') for one in results):.{digits}f}",
        f"{median(_us(one, 'nginx') for one in results):.{digits}f}",
        f"{median(both):.{digits}f}",
        f"{min(both):.{digits}f} to {max(both):.{digits}f}",
        f"{median(both) / over_tcp:.2f} ×",
        f"{median(one.latencies_ms['p99'] for one in results):.1f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.nginx_sockets", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    facts = machine()
    results: dict[tuple[str, str], list[Result]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="ws-cluster-bench-") as folder,
        valkey(Path(folder)) as store,
    ):
        for number in range(given.rounds):
            for load in LOADS:
                # Either is the first of every other round.
                for way in WAYS if number % 2 == 0 else reversed(WAYS):
                    result = measure(load, way, store, Path(folder))
                    results.setdefault((load.title, way), []).append(result)
                    both = _us(result, "server", "nginx")
                    print(f"round {number + 1}: {load.title}, {way}: {both:.3f} µs", flush=True)
    rows = [
        _row(load, way, results[load.title, way], results[load.title, TCP])
        for load in LOADS
        for way in WAYS
    ]
    text = "\n".join([HEAD.format(rounds=given.rounds) + rows[0], *rows[1:], "", facts, ""])
    (RESULTS / "nginx_sockets.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
