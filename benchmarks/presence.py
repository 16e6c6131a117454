"""`python -m benchmarks.presence`: a channel with 10,000 members at one worker, with a Valkey of its own.

In each round a process is started anew on the first core, and a Valkey on the last. Measured in it:
presence_stats of 100 and of 10,000 members in turn; reading the members; the renewal of all entries; all
members joining at once, each of which gets the joins. A turn of the event loop is measured by the CPU time of
the process, so that other work on the machine does not count, and by the clock. Writes
benchmarks/results/presence.md. Exit code 1 when a bound is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec
import uvloop

from benchmarks.micro.comparison import machine
from benchmarks.paths import REPOSITORY, RESULTS, pin_to_server_core
from benchmarks.processes import ServerFailed
from benchmarks.servers import valkey
from cluster.broker.redis_broker import RedisBroker
from cluster.codec import JSON, Codec
from cluster.metrics.counters import Counters
from cluster.node.join_leave import JoinLeavePushes
from cluster.node.members import Members, membership_of
from cluster.presence import PresenceMode
from cluster.presence.redis_presence import RedisPresence
from cluster.protocol import Publication
from cluster.resp.router import Router

SIZES = (100, 10_000)
READS = 300
MODE = PresenceMode(has_entries=True, is_published=True)
STORM_SECONDS = 5.0
JOINS_PER_TURN = 500
ROUNDS = 5
ROUND_TIMEOUT_SECONDS = 120.0
#: The bounds; docs/topics/presence.md has those of joins. A turn is that of a broadcast in `benchmarks.api`.
STATS_RATIO = 1.5
LONGEST_TURN_MS = 50.0
SECOND_BYTES = 32 << 20
CLIENT_SECOND_BYTES = 512 << 10
WAITING_BYTES = 512 << 10
GROWN_MIB = 32.0
#: The longest frame of one join here, and of all: what may be sent before it counts.
JOIN_BYTES = 256
FRAME_BYTES = 64 << 10


@dataclass(slots=True, frozen=True)
class Identity:
    user: str
    client: str
    info: bytes
    codec: Codec = JSON


class StandIn:
    """A client that counts the bytes written to it."""

    __slots__ = ("connection", "received")

    def __init__(self, number: int) -> None:
        self.connection = Identity(f"user-{number // 2}", str(uuid.uuid4()), b'{"name":"Ann"}')
        self.received = 0

    def write(self, data: bytes) -> None:
        self.received += len(data)


class Turns:
    """The longest turn of the event loop, in seconds of CPU time and of the clock."""

    def __init__(self) -> None:
        self.cpu = self.clock = 0.0
        self._is_watching = True
        self._cpu_at, self._clock_at = time.process_time(), time.perf_counter()
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        cpu, clock = time.process_time(), time.perf_counter()
        self.cpu = max(self.cpu, cpu - self._cpu_at)
        self.clock = max(self.clock, clock - self._clock_at)
        self._cpu_at, self._clock_at = cpu, clock
        if self._is_watching:
            asyncio.get_running_loop().call_soon(self._turn)

    def stop(self) -> tuple[float, float]:
        """Return milliseconds of CPU and by the clock."""
        self._is_watching = False
        return self.cpu * 1000, self.clock * 1000


class Worker:
    """The parts of a worker that presence needs, and their listener."""

    def __init__(self, url: str) -> None:
        self.counters = Counters()
        self.router = Router([url], timeout_seconds=10.0)
        self.store = RedisPresence(self.router, prefix="bench:0", ttl_seconds=3600.0)
        self.pushes = JoinLeavePushes(self.counters)
        self.members = Members(
            self.store, self.pushes, self.counters, interval_seconds=1000.0, ttl_seconds=3600.0
        )
        self.broker = RedisBroker(
            self.router,
            self.router.subscriptions,
            prefix="bench:0",
            listener=self,
            counters=self.counters,
        )

    def publications(self, channel: str, publications: list[Publication]) -> None:
        """There are none."""

    def resumed(self, channel: str) -> None:
        """Nothing is positioned."""

    def joins_and_leaves(self, channel: str, events: list[bytes]) -> None:
        self.members.receive(channel, events)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Worker]:
        await self.router.start()
        try:
            yield self
        finally:
            await self.router.aclose()

    def enter(self, channel: str, count: int, *, gets_pushes: bool) -> list[StandIn]:
        membership = membership_of(MODE, gets_pushes=gets_pushes)
        clients = [StandIn(number) for number in range(count)]
        for client in clients:
            self.members.enter(channel, client, membership)
        return clients


@dataclass(slots=True, frozen=True)
class Work:
    """Something that a worker did: how long it took, and the longest turn of its loop meanwhile."""

    took_ms: float
    turn_cpu_ms: float
    turn_clock_ms: float


@dataclass(slots=True, frozen=True)
class Sent:
    """What the joins of a storm were in bytes: to all members, and to the one that got most."""

    seconds: float
    to_all: int
    to_one: int


@dataclass(slots=True, frozen=True)
class Round:
    stats_us: tuple[float, float]
    read: Work
    renewal: Work
    storm: Work
    sent: Sent
    joins: int
    dropped: int
    waiting_bytes: int
    grown_mib: float

    @property
    def stats_ratio(self) -> float:
        return self.stats_us[1] / self.stats_us[0]


async def stats_cost(worker: Worker) -> tuple[float, float]:
    """Microseconds that presence_stats takes of each size, which take turns."""
    took: dict[int, list[float]] = {size: [] for size in SIZES}
    for size in SIZES:
        worker.enter(f"room {size}", size, gets_pushes=False)
    await worker.members.flush()
    for _ in range(READS):
        for size in SIZES:
            began = time.perf_counter()
            found = await worker.store.stats(f"room {size}", sweeps=True)
            took[size].append((time.perf_counter() - began) * 1e6)
            assert found == (size, size // 2), found
    few, many = (median(took[size]) for size in SIZES)
    return few, many


async def read_cost(worker: Worker) -> Work:
    began, turns = time.perf_counter(), Turns()
    found = await worker.store.entries(f"room {SIZES[1]}", max_bytes=16 << 20, sweeps=True)
    assert len(found) == SIZES[1]
    return Work((time.perf_counter() - began) * 1000, *turns.stop())


async def renewal(worker: Worker) -> Work:
    [channel] = [one for one in worker.members._channels.values() if len(one.members) == SIZES[1]]
    turns, began = Turns(), time.perf_counter()
    await worker.members._renew(channel)
    await worker.members.flush()
    renewed = worker.counters.presence_renewals["renewed"]
    assert renewed == SIZES[1], renewed
    return Work((time.perf_counter() - began) * 1000, *turns.stop())


async def storm(worker: Worker) -> tuple[Work, Sent, float]:
    """All members join at once, and each gets the joins of all."""
    await worker.broker.subscribe("storm")
    count, before = SIZES[1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clients = [StandIn(number) for number in range(count)]
    await asyncio.sleep(0)
    turns, began = Turns(), time.perf_counter()
    membership = membership_of(MODE, gets_pushes=True)
    for first in range(0, count, JOINS_PER_TURN):
        # As the subscribes of so many sockets that are read in one turn.
        for client in clients[first : first + JOINS_PER_TURN]:
            worker.members.enter("storm", client, membership)
        await asyncio.sleep(0)
    await worker.members.flush()
    stored = (time.perf_counter() - began) * 1000
    await asyncio.sleep(STORM_SECONDS)
    seconds, work = time.perf_counter() - began, Work(stored, *turns.stop())
    sent = worker.counters.bytes_out
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return work, Sent(seconds, sent, max(one.received for one in clients)), grown / 1024


async def measure(url: str) -> Round:
    async with Worker(url).open() as worker:
        stats_us = await stats_cost(worker)
        read, renewed = await read_cost(worker), await renewal(worker)
        joined, sent, grown_mib = await storm(worker)
        return Round(
            stats_us,
            read,
            renewed,
            joined,
            sent,
            worker.counters.messages_out,
            worker.counters.dropped["join_leave"],
            worker.pushes._waiting_bytes,
            grown_mib,
        )


@dataclass(slots=True, frozen=True)
class Row:
    """One line of the page: the median of the rounds, or the worst of them, against its bound."""

    what: str
    unit: str
    values: Sequence[float]
    bound: float | None = None
    is_worst: bool = False

    @property
    def value(self) -> float:
        return max(self.values) if self.is_worst else median(self.values)

    @property
    def is_broken(self) -> bool:
        return self.bound is not None and self.value > self.bound

    def line(self) -> str:
        low, high = min(self.values), max(self.values)
        verdict = "" if self.bound is None else "FAIL" if self.is_broken else "pass"
        digits = 2 if self.unit == "×" else 1
        at_most = "" if self.bound is None else f"{self.bound:,g}"
        cells = [
            self.what,
            self.unit,
            f"{self.value:,.{digits}f}",
            f"{low:,.{digits}f} to {high:,.{digits}f}",
        ]
        return f"| {' | '.join([*cells, at_most, verdict])} |"


def rows_of(rounds: Sequence[Round]) -> list[Row]:
    few, many = SIZES
    rows = [
        Row(f"presence_stats, {few} members", "µs", [one.stats_us[0] for one in rounds]),
        Row(f"presence_stats, {many:,} members", "µs", [one.stats_us[1] for one in rounds]),
        Row(
            f"presence_stats, {many:,} members against {few}", "×",
            [one.stats_ratio for one in rounds], STATS_RATIO,
        ),
    ]  # fmt: skip
    for what, works in (
        (f"presence of {many:,} members", [one.read for one in rounds]),
        (f"renewal of {many:,} entries", [one.renewal for one in rounds]),
        (f"{many:,} members join at once", [one.storm for one in rounds]),
    ):
        rows += [
            Row(f"{what}, until it is stored or read", "ms", [one.took_ms for one in works]),
            Row(
                f"{what}, longest turn of CPU", "ms",
                [one.turn_cpu_ms for one in works], LONGEST_TURN_MS, is_worst=True,
            ),
            Row(f"{what}, longest turn by the clock", "ms", [one.turn_clock_ms for one in works]),
        ]  # fmt: skip
    return rows + _rows_of_storm(rounds)


def _rows_of_storm(rounds: Sequence[Round]) -> list[Row]:
    def per_second(counts: Sequence[float]) -> list[float]:
        return [count / one.sent.seconds for count, one in zip(counts, rounds, strict=True)]

    def share(counts: Sequence[float], second_bytes: int, frame_bytes: int) -> list[float]:
        # After a quiet second, as many may be sent at once as in one; the last frame may be too large.
        allowed = [second_bytes * (1 + one.sent.seconds) + frame_bytes for one in rounds]
        return [count / most for count, most in zip(counts, allowed, strict=True)]

    to_all = [one.sent.to_all for one in rounds]
    to_one = [one.sent.to_one for one in rounds]
    return [
        Row("joins delivered", "per s", per_second([one.joins for one in rounds])),
        Row("joins dropped", "per s", per_second([one.dropped for one in rounds])),
        Row("bytes to all members", "MiB per s", [each / 2**20 for each in per_second(to_all)]),
        Row(
            "bytes to all members, of what 32 MiB per second allow", "×",
            share(to_all, SECOND_BYTES, SIZES[1] * JOIN_BYTES), 1.0, is_worst=True,
        ),
        Row("bytes to the member that got most", "KiB per s", [each / 2**10 for each in per_second(to_one)]),
        Row(
            "bytes to that member, of what 512 KiB per second allow", "×",
            share(to_one, CLIENT_SECOND_BYTES, FRAME_BYTES), 1.0, is_worst=True,
        ),
        Row(
            "bytes that wait at the end", "",
            [one.waiting_bytes for one in rounds], WAITING_BYTES, is_worst=True,
        ),
        Row(
            "memory that has grown, at most", "MiB",
            [one.grown_mib for one in rounds], GROWN_MIB, is_worst=True,
        ),
    ]  # fmt: skip


HEAD = f"""\
# Presence

Written by `python -m benchmarks.presence`; [presence, joins and leaves](../../docs/topics/presence.md) has the bounds of joins.
One worker's parts in one process on the first core, with a Valkey on the last. The value is the median of {{rounds}} rounds,
each in a process of its own; in the rows of turns of CPU, of bytes and of memory it is the worst of them. By the clock
other processes of the machine may have run in a turn, so it has no bound. A storm: all members join within
{SIZES[1] // JOINS_PER_TURN} turns of the loop, and everything is counted for {STORM_SECONDS:g} s; the joins of all to all would be {SIZES[1] ** 2:,}.

| what | unit | value | lowest to highest | at most | |
| --- | --- | --: | --: | --: | --- |
"""


def one_round(scratch: Path) -> Round:
    """Measure in a process of its own.

    Raises:
        ServerFailed: it has failed; the text is the end of what it said.
    """
    with valkey(scratch) as store:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.presence", "--one-round", store.url],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=ROUND_TIMEOUT_SECONDS,
        )  # fmt: skip
    if done.returncode:
        raise ServerFailed(" / ".join(done.stderr.strip().splitlines()[-3:]))
    found: Round = msgspec.json.decode(done.stdout, type=Round)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.presence", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--one-round", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one_round:
        pin_to_server_core()
        print(msgspec.json.encode(uvloop.run(measure(given.one_round))).decode())
        return 0
    facts, rounds = machine(), []
    with tempfile.TemporaryDirectory(prefix="ws-cluster-bench-") as folder:
        for number in range(given.rounds):
            rounds.append(one_round(Path(folder)))
            print(f"round {number + 1}: {rounds[-1]}", file=sys.stderr)
    rows = rows_of(rounds)
    lines = "\n".join(row.line() for row in rows)
    text = f"{HEAD.format(rounds=given.rounds)}{lines}\n\n{facts}\n"
    (RESULTS / "presence.md").write_text(text)
    print(text)
    broken = [row.what for row in rows if row.is_broken]
    print("\n".join(broken), file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
