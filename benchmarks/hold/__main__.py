"""`python -m benchmarks.hold`: what very many connections cost, held through nginx by this machine's workers.

Opens them from as many loopback addresses as are needed, each connected with a session and subscribed,
and measures memory, CPU at rest with pings running, broadcasts to all of them, and a roll of all workers
under it, after which every connection must have every publication once. Writes results/hold.md,
hold.json and their part of docker/capacity.yml. Exit code 0 with a reason when the limits of the machine forbid it, 1 when something was lost.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks.attacks.control import Control
from benchmarks.hold import capacity_rules
from benchmarks.hold.crowd import CHANNEL
from benchmarks.hold.measure import Cost, Groups, kernel_bytes
from benchmarks.hold.plan import Forbidden, Plan, plan_for
from benchmarks.hold.report import Held, page
from benchmarks.load.clients import payload
from benchmarks.micro.comparison import machine
from benchmarks.paths import BENCHMARKS, REPOSITORY, RESULTS
from benchmarks.processes import Process, ServerFailed
from benchmarks.servers import (
    nginx_of,
    start_cluster,
    valkey_of,
    wait_all_ready,
    workers_of,
)

CONNECTIONS = 100_000
BROADCASTS = 5
DATA_BYTES = 128
REST_SECONDS = 30.0
OPENING_SECONDS = 600.0
DELIVERY_SECONDS = 120.0
ROLL_SECONDS = 600.0
#: During the roll one publication is sent after another, with so long a pause.
ROLL_PAUSE_SECONDS = 2.0


class Crowds:
    """The processes with the connections, and what they have said."""

    def __init__(self, plan: Plan, port: int, scratch: Path) -> None:
        self._logs = [scratch / f"crowd-{number}.log" for number in range(plan.crowds)]
        self.processes = [
            Process(
                (
                    *(sys.executable, "-m", "benchmarks.hold.crowd", "--port", str(port)),
                    *("--network", f"127.1.{number}", "--connections", str(connections)),
                ),
                self._logs[number], core=None, cwd=REPOSITORY,
            )
            for number, connections in enumerate(plan.per_crowd)
        ]  # fmt: skip

    def said(self, key: str, value: int | None = None) -> list[dict[str, float]]:
        """The last line of each process that has the key, and the value if one is given."""
        found = []
        for log in self._logs:
            lines = [json.loads(one) for one in log.read_text().splitlines() if one.startswith("{")]
            having = [one for one in lines if key in one and (value is None or one[key] == value)]
            found += having[-1:]
        return found

    def wait(self, key: str, seconds: float, value: int | None = None) -> float:
        """Wait until all processes have said it; returns when the last one did, CLOCK_MONOTONIC.

        Raises:
            ServerFailed: when one has ended, or the time is up.
        """
        count = len(self.processes)
        what = f"{key} {'' if value is None else value} of all {count} processes"
        for process in self.processes:
            process.wait_until(lambda: len(self.said(key, value)) == count, what, seconds)
        return max(one["at"] for one in self.said(key, value))

    def stop(self) -> None:
        for process in self.processes:
            process.stop(seconds=30)


class Publisher:
    """Publishes one by one, each from a connection of its own: a roll would close a kept one."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.number = 0

    def publish(self) -> float:
        """Publish the next one; returns when it was sent, CLOCK_MONOTONIC."""
        self.number += 1
        deadline = time.monotonic() + DELIVERY_SECONDS
        while True:
            try:
                with Control(self._port) as control:
                    begun = time.monotonic()
                    control.publish(CHANNEL, payload(self.number, DATA_BYTES).decode())
                return begun
            except (OSError, ServerFailed):
                # Its worker was replaced.
                if time.monotonic() > deadline:
                    raise


def broadcasts(publisher: Publisher, crowds: Crowds) -> list[float]:
    """Return the seconds that each of some publications took until all connections had it."""
    taken = []
    for _ in range(BROADCASTS):
        begun = publisher.publish()
        taken.append(crowds.wait("number", DELIVERY_SECONDS, publisher.number) - begun)
    return taken


def roll(cluster: Process, publisher: Publisher, crowds: Crowds, workers: int) -> float:
    """Replace all workers while publishing; returns the seconds until all connections had everything."""
    old, begun = set(workers_of(cluster)), time.monotonic()
    cluster.signal(signal.SIGHUP)
    while len(set(workers_of(cluster)) - old) < workers or old & set(workers_of(cluster)):
        if time.monotonic() - begun > ROLL_SECONDS:
            raise ServerFailed(f"the roll was not over after {ROLL_SECONDS} s")
        publisher.publish()
        time.sleep(ROLL_PAUSE_SECONDS)
    publisher.publish()
    return crowds.wait("number", DELIVERY_SECONDS, publisher.number) - begun


def hold(plan: Plan, scratch: Path) -> Held:
    cluster, port, admin_port, _ = start_cluster(
        scratch,
        workers=plan.workers,
        nginx=True,
        core=None,
        config=BENCHMARKS / "hold" / "hold.toml",
    )
    with ExitStack() as stack:
        stack.callback(cluster.stop, 60)
        wait_all_ready(cluster, admin_port, plan.workers, 60)
        groups = Groups(
            {
                "workers": lambda: workers_of(cluster),
                "nginx": lambda: nginx_of(cluster),
                "Valkey": lambda: valkey_of(cluster),
                "supervisor": lambda: [cluster.pid],
            }
        )
        empty, kernel, begun = groups.memory(), kernel_bytes(), time.monotonic()
        crowds = Crowds(plan, port, scratch)
        stack.callback(crowds.stop)
        opened = crowds.wait("opened", OPENING_SECONDS) - begun
        memory = groups.memory()
        costs = {
            name: Cost(memory[name] - empty[name], cpu)
            for name, cpu in groups.cpu_at_rest(REST_SECONDS).items()
        }
        kernel = kernel_bytes() - kernel
        publisher = Publisher(port)
        taken = broadcasts(publisher, crowds)
        rolled = roll(cluster, publisher, crowds, plan.workers)
        crowds.stop()
        return Held(
            plan, opened, costs, kernel, taken, rolled, publisher.number, crowds.said("totals")
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument(
        "--rules",
        action="store_true",
        help="only write docker/capacity.yml, from the stored results",
    )
    given = parser.parse_args()
    if given.rules:
        capacity_rules.write()
        return 0
    try:
        plan = plan_for(given.connections)
    except Forbidden as reason:
        print(f"skipped: {reason}")
        return 0
    facts = machine(is_pinned=False)
    with tempfile.TemporaryDirectory(prefix="hold-") as scratch:
        held = hold(plan, Path(scratch))
    text = page(held, facts)
    print(text)
    (RESULTS / "hold.md").write_text(text)
    (RESULTS / "hold.json").write_text(
        json.dumps(asdict(held) | {"median": statistics.median(held.broadcasts)}, indent=1) + "\n"
    )
    capacity_rules.write()
    for fault in held.faults:
        print(fault, file=sys.stderr)
    return 1 if held.faults else 0


if __name__ == "__main__":
    sys.exit(main())
