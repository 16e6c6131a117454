"""`python -m benchmarks.nginx_memory`: the memory that the embedded nginx needs for an idle connection, and with defaults.

For each measurement a cluster of one worker is started with its nginx. For the defaults, a directive is removed
from nginx's configuration, which is loaded again before the first client connects. Writes
benchmarks/results/nginx_memory.md.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.micro.comparison import machine
from benchmarks.nginx_sockets import configuration_of, reload_nginx
from benchmarks.paths import RESULTS
from benchmarks.processes import ServerFailed
from benchmarks.rounds import generate
from benchmarks.servers import Running, Valkey, nginx_of, start_cluster, valkey, wait_all_ready

OURS = "as configured"
#: That of nginx.conf which is there for memory.
DIRECTIVE = "request_pool_size"
DEFAULT = f"with the default of `{DIRECTIVE}`"
CONNECTIONS = 5_000
ROUNDS = 3

HEAD = """\
# nginx's memory for an idle connection

Written by `python -m benchmarks.nginx_memory`: what nginx grows by (RSS) while {connections:,} clients connect, subscribe and
then do nothing, for each of them. Medians of {rounds} rounds in which all take turns, each with a new nginx.

| nginx.conf | KiB | lowest to highest |
| --- | --: | --: |
"""


def measure(way: str, store: Valkey, scratch: Path) -> float:
    """The bytes for each connection.

    Raises:
        ServerFailed: if nothing starts, or connections are lost.
    """
    process, public, admin_port, _ = start_cluster(
        scratch, workers=1, nginx=True, redis_url=store.url
    )
    try:
        wait_all_ready(process, admin_port, 1)
        if way == DEFAULT:
            path = configuration_of(process)
            text, count = re.subn(rf"(?m)^\s*{DIRECTIVE} .*\n", "", path.read_text())
            if count != 1:
                raise ServerFailed(f"{count} times {DIRECTIVE} in {path}")
            path.write_text(text)
            reload_nginx(process)
        watched = {"server": nginx_of(process)}
        running = Running(process, "centrifuge", [public], watched, admin_port)
        words = ("--connections", str(CONNECTIONS), "--channels", "200", "--window", "1")
        result = generate(running, "idle", list(words), store)
    finally:
        process.stop()
    if result.closed:
        raise ServerFailed(f"{result.closed} connections were closed: {result.reasons}")
    return result.memory["rss_bytes"]


def _row(title: str, values: Sequence[float]) -> str:
    low, middle, high = (f(values) / 1024 for f in (min, median, max))
    return f"| {title} | {middle:.1f} | {low:.1f} to {high:.1f} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.nginx_memory", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    facts = machine()
    results: dict[str, list[float]] = {OURS: [], DEFAULT: []}
    with (
        tempfile.TemporaryDirectory(prefix="ws-cluster-bench-") as folder,
        valkey(Path(folder)) as store,
    ):
        for number in range(given.rounds):
            for way, found in results.items():
                found.append(measure(way, store, Path(folder)))
                print(f"round {number + 1}: {way}: {found[-1] / 1024:.1f} KiB", flush=True)
    rows = [_row(way, found) for way, found in results.items()]
    head = HEAD.format(connections=CONNECTIONS, rounds=given.rounds)
    text = "\n".join([head + rows[0], *rows[1:], "", facts, ""])
    (RESULTS / "nginx_memory.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
