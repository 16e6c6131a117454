"""`python -m benchmarks.api`: publishes through the server API per core, and a broadcast's longest turn.

In each round every server is started anew on the first core, one after the other, and each is
the first of every other round; the generator and Valkey have the last core. Writes
benchmarks/results/api.md. Exit code 1 when ours breaks a bound, or a server that is installed fails.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import uvloop

from benchmarks.api.api_servers import API_SERVERS, centrifugo_version
from benchmarks.api.publishers import (
    CHANNELS,
    CONNECTIONS,
    Broadcast,
    Published,
    broadcast,
    publish,
)
from benchmarks.install import PeerUnavailable
from benchmarks.micro.comparison import machine
from benchmarks.paths import LOAD_CORE, RESULTS
from benchmarks.processes import ServerFailed
from benchmarks.servers import Valkey, valkey

PUBLISHES_PER_CORE = 5_000
LONGEST_TURN_MS = 50.0
ROUNDS = 5
LOADS = {"without history": "news", "with history": "kept:one"}
OURS = "ours"

HEAD = f"""\
# The server API

Written by `python -m benchmarks.api`; [how to use the API](../../docs/how-to/server-api.md). One server on the
first core; the generator and Valkey, which both use for publications and history, on the last. Medians of {{rounds}}
rounds in which the servers take turns. *Per core* is publishes divided by the CPU seconds (user and system) of the
server's process.

## Publishing over {CONNECTIONS} kept-alive connections, one request in flight on each

The bound is {PUBLISHES_PER_CORE:,} publishes per second and core.

| channel | server | per second | per core s | lowest to highest | CPU µs each | Valkey µs each | bound |
| --- | --- | --: | --: | --: | --: | --: | --- |
"""
BROADCAST_HEAD = f"""
## A broadcast to {CHANNELS:,} channels with history

The longest turn is the time between two runs of a timer of one millisecond in the worker: of CPU of its loop's
thread, and by the clock without the time that it was ready and waited for a core. The longest of all rounds; neither
may be more than {LONGEST_TURN_MS:.0f} ms.

| server | seconds | CPU ms | longest turn, ms of CPU | longest turn, ms held | bound |
| --- | --: | --: | --: | --: | --- |
"""


@dataclass(slots=True)
class Samples:
    """All that one server did, round by round."""

    published: dict[str, list[Published]] = field(
        default_factory=lambda: {name: [] for name in LOADS}
    )
    broadcasts: list[Broadcast] = field(default_factory=list)

    def turn_cpu_ms(self) -> float | None:
        turns = [one.turn_cpu_ms for one in self.broadcasts if one.turn_cpu_ms is not None]
        return max(turns) if turns else None

    def turn_held_ms(self) -> float | None:
        turns = [one.turn_held_ms for one in self.broadcasts if one.turn_held_ms is not None]
        return max(turns) if turns else None

    def per_core(self, load: str) -> float:
        return median(one.per_core for one in self.published[load])


def faults(ours: Samples) -> list[str]:
    """Which bounds ours breaks."""
    found = [
        f"publishing {load}: {ours.per_core(load):,.0f} per second and core,"
        f" at least {PUBLISHES_PER_CORE:,} are to be reached"
        for load in LOADS
        if ours.per_core(load) < PUBLISHES_PER_CORE
    ]
    for name, turn in (("of CPU", ours.turn_cpu_ms()), ("held", ours.turn_held_ms())):
        if turn is None or turn > LONGEST_TURN_MS:
            found.append(f"broadcast: a turn of {turn} ms {name}, allowed are {LONGEST_TURN_MS}")
    return found


def _measure(name: str, samples: Samples, store: Valkey, scratch: Path, seconds: float) -> None:
    running = API_SERVERS[name].start(store, scratch)
    try:
        for load, channel in LOADS.items():
            done = uvloop.run(publish(running, store, channel, seconds))
            samples.published[load].append(done)
            print(f"{name}, {load}: {done.per_core:,.0f} per second and core", file=sys.stderr)
        sent = uvloop.run(broadcast(running, has_turns=name == OURS))
        samples.broadcasts.append(sent)
        print(f"{name}: {sent}", file=sys.stderr)
    except OSError as error:
        last = running.process.last_words()
        raise ServerFailed(f"{name}: {error}; the server said: {last}") from error
    finally:
        running.process.stop()


def _publish_row(load: str, name: str, samples: Samples) -> str:
    done = samples.published[load]

    def middle(of: Callable[[Published], float]) -> str:
        return f"{median(of(one) for one in done):,.0f}"

    lowest, highest = min(one.per_core for one in done), max(one.per_core for one in done)
    is_met = samples.per_core(load) >= PUBLISHES_PER_CORE
    cells = [
        load, API_SERVERS[name].title,
        middle(lambda one: one.count / one.seconds),
        middle(lambda one: one.per_core),
        f"{lowest:,.0f} to {highest:,.0f}",
        middle(lambda one: one.cpu_seconds / one.count * 1e6),
        middle(lambda one: one.store_cpu_seconds / one.count * 1e6),
        ("pass" if is_met else "FAIL") if name == OURS else "",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _broadcast_row(name: str, samples: Samples) -> str:
    turns = [samples.turn_cpu_ms(), samples.turn_held_ms()]
    is_met = all(turn is not None and turn <= LONGEST_TURN_MS for turn in turns)
    cells = [
        API_SERVERS[name].title,
        f"{median(one.seconds for one in samples.broadcasts):.3f}",
        f"{median(one.cpu_seconds for one in samples.broadcasts) * 1000:,.0f}",
        *("" if turn is None else f"{turn:.1f}" for turn in turns),
        ("pass" if is_met else "FAIL") if name == OURS else "",
    ]
    return f"| {' | '.join(cells)} |"


def page(measured: dict[str, Samples], notes: Sequence[str], facts: str, rounds: int) -> str:
    rows = [_publish_row(load, name, measured[name]) for load in LOADS for name in measured]
    broadcasts = [_broadcast_row(name, samples) for name, samples in measured.items()]
    publishes = HEAD.format(rounds=rounds) + "\n".join(rows)
    parts = ["\n".join([BROADCAST_HEAD + broadcasts[0], *broadcasts[1:]]), *notes, facts]
    return f"{publishes}\n" + "\n\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.api", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each window of publishes")
    given = parser.parse_args()
    facts, notes, measured = machine(), [], {}
    for name, server in API_SERVERS.items():
        try:
            server.install()
            measured[name] = Samples()
            notes += [f"{server.title}: {centrifugo_version()}."] if name == "centrifugo" else []
        except PeerUnavailable as why:
            notes.append(f"{server.title} is missing: {why}.")
    # Servers and Valkey are pinned when they start.
    os.sched_setaffinity(0, {LOAD_CORE})
    with (
        tempfile.TemporaryDirectory(prefix="ws-cluster-bench-") as folder,
        valkey(Path(folder)) as store,
    ):
        for number in range(given.rounds):
            for name in measured if number % 2 == 0 else reversed(measured):
                _measure(name, measured[name], store, Path(folder), given.seconds)
    text = page(measured, notes, facts, given.rounds)
    (RESULTS / "api.md").write_text(text)
    print(text)
    broken = faults(measured[OURS])
    print("\n".join(broken), file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
