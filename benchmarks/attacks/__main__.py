"""`python -m benchmarks.attacks`: what 500 clients notice while 8 others attack their worker.

For each attack a worker is started on the first core. 500 clients listen to a channel with 100
publications per second: for some seconds alone, then for as long with 8 attackers, which share
the last core with the clients and the store and yield to both. Writes benchmarks/results/attacks.md. Exit code 1
when an attack breaks a bound: the longest turn of the loop, how many times longer deliveries take, good
clients closed, deliveries lost, or not known to have come.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.attacks.control import Control
from benchmarks.attacks.kinds import ATTACKS
from benchmarks.load.measure import Result
from benchmarks.micro.comparison import machine
from benchmarks.paths import REPOSITORY, RESULTS
from benchmarks.processes import Process, ServerFailed, accepts, free_ports
from benchmarks.rounds import generate
from benchmarks.servers import Running, Valkey, valkey

CLIENTS = 500
ATTACKERS = 8
RATE = 100
HISTORY = 300
LONGEST_TURN_MS = 100.0
MOST_TIMES = 2.0
#: The attack begins before the load's clients connect and ends after they have measured.
_MARGIN_SECONDS = 12.0

HEAD = f"""\
# Attacks

Written by `python -m benchmarks.attacks`; docs/topics/limits.md says what bounds them. {CLIENTS} clients of
one worker listen to {RATE} publications per second while {ATTACKERS} connections attack, opened again whenever
they are closed. *Longest turn*: CPU time of the worker's event loop between two runs of a timer of
one millisecond, at most. *p99*: from publish until a publication is at its client's socket, by the
kernel's clock; *read*: until the client has read it, which waits for the core that the clients share
with the attackers and the store. Medians of three rounds. Allowed are a turn of {LONGEST_TURN_MS:.0f} ms and
{MOST_TIMES:.0f} times the p99.

| attack | longest turn, ms | p99 before, ms | p99 under attack, ms | times | read, ms before | read, ms under attack | attackers' connections | sent, MiB | lost | closed |
| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |
"""


@dataclass(frozen=True, slots=True)
class Round:
    """One attack, and the same clients before it."""

    turn_ms: float
    before: Result
    under: Result
    connections: int
    bytes_sent: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """All rounds of a kind: the worst turn and all losses, and medians of the latencies."""

    kind: str
    rounds: Sequence[Round]

    @property
    def turn_ms(self) -> float:
        return max(one.turn_ms for one in self.rounds)

    @property
    def p99_before_ms(self) -> float:
        return _p99(one.before.arrivals_ms for one in self.rounds)

    @property
    def p99_under_ms(self) -> float:
        return _p99(one.under.arrivals_ms for one in self.rounds)

    @property
    def times(self) -> float:
        """How many times longer deliveries take under attack."""
        return self.p99_under_ms / self.p99_before_ms

    @property
    def closed(self) -> int:
        return sum(one.under.closed for one in self.rounds)

    @property
    def lost(self) -> int | None:
        """Deliveries that are missing; None when a round could not tell."""
        counts = [one.under.lost for one in self.rounds]
        return None if None in counts else sum(count or 0 for count in counts)

    @property
    def faults(self) -> list[str]:
        found = []
        if self.turn_ms > LONGEST_TURN_MS:
            found.append(f"a turn of {self.turn_ms:.0f} ms, allowed are {LONGEST_TURN_MS:.0f}")
        if self.times > MOST_TIMES:
            found.append(f"a p99 of {self.times:.1f} times as long, allowed is {MOST_TIMES:.0f}")
        if self.closed:
            reasons = [one.under.reasons for one in self.rounds]
            found.append(f"{self.closed} good clients were closed: {reasons}")
        if self.lost is None:
            found.append("it is not known whether deliveries were lost: they kept coming")
        elif self.lost:
            found.append(f"{self.lost} deliveries were lost")
        return found

    def row(self) -> str:
        connections = sum(one.connections for one in self.rounds)
        sent = sum(one.bytes_sent for one in self.rounds) / 2**20
        read_before = _p99(one.before.latencies_ms for one in self.rounds)
        read_under = _p99(one.under.latencies_ms for one in self.rounds)
        lost = "unknown" if self.lost is None else str(self.lost)
        return (
            f"| {self.kind} | {self.turn_ms:.1f} | {self.p99_before_ms:.1f} | {self.p99_under_ms:.1f} "
            f"| {self.times:.1f} | {read_before:.1f} | {read_under:.1f} "
            f"| {connections:,} | {sent:,.1f} | {lost} | {self.closed} |"
        )


def _p99(latencies_ms: Iterable[Mapping[str, float]]) -> float:
    return median(one["p99"] for one in latencies_ms)


def measure(kind: str, store: Valkey, scratch: Path, seconds: float) -> Round:
    """Start a worker, load it, attack it, and stop it."""
    port = free_ports()
    process = Process(
        (sys.executable, "-m", "benchmarks.attacks.attacked_worker",
         "--port", str(port), "--redis", store.url),
        scratch / "attacked.log", cwd=REPOSITORY,
    )  # fmt: skip
    try:
        process.wait_until(lambda: accepts(port), "listening port")
        running = Running(process, "centrifuge", [port], {"server": [process.pid]})
        load = ["--connections", str(CLIENTS), "--rate", str(RATE), "--window", str(seconds),
                "--arrivals"]  # fmt: skip
        with Control(port) as control:
            control.fill_history(HISTORY)
        before = generate(running, "broadcast", load)
        _longest_turn(port)
        attacker = _attack(kind, port, seconds + _MARGIN_SECONDS)
        try:
            under = generate(running, "broadcast", load)
            turn = _longest_turn(port)
        finally:
            attacker.terminate()
            said, _ = attacker.communicate(timeout=30)
        totals = json.loads(said)
        return Round(turn["cpu"], before, under, totals["connections"], totals["bytes_sent"])
    finally:
        process.stop()


def _longest_turn(port: int) -> dict[str, float]:
    # A connection of its own: one that waits for a whole window would miss its pings.
    with Control(port) as control:
        return control.longest_turn()


def _attack(kind: str, port: int, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.attacks.attacker", kind,
         "--port", str(port), "--connections", str(ATTACKERS), "--seconds", str(seconds)],
        cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.attacks", description=__doc__)
    parser.add_argument("--only", action="append", choices=sorted(ATTACKS), default=[])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each window")
    parser.add_argument("--rounds", type=int, default=3, help="of each attack")
    given = parser.parse_args()
    facts, outcomes, failed = machine(), [], []
    with (
        tempfile.TemporaryDirectory(prefix="ws-cluster-bench-") as folder,
        valkey(Path(folder)) as store,
    ):
        for kind in given.only or ATTACKS:
            try:
                rounds = [
                    measure(kind, store, Path(folder), given.seconds) for _ in range(given.rounds)
                ]
            except (ServerFailed, OSError, subprocess.SubprocessError) as failure:
                failed.append(f"{kind}: {failure}")
                continue
            outcome = Outcome(kind, rounds)
            print(outcome.row(), flush=True)
            outcomes.append(outcome)
            failed += [f"{kind}: {fault}" for fault in outcome.faults]
    if not given.only:
        rows = "\n".join(outcome.row() for outcome in outcomes)
        (RESULTS / "attacks.md").write_text(f"{HEAD}{rows}\n\n{facts}\n")
    print("\n".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
