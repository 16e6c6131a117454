"""`python -m benchmarks.presence`: a channel with 10,000 members at one worker, with a Valkey of its own.

Measured in one process: presence_stats with 100 and with 10,000 members; all members joining at once, each
of which gets the joins; the renewal of all entries. A turn of the event loop is measured by the CPU time of
this process, so that other work on the machine does not count, and by the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvloop

from cluster.broker.redis_broker import RedisBroker
from cluster.children.binaries import valkey_program
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

    def stop(self) -> str:
        self._is_watching = False
        return (
            f"longest turn {self.cpu * 1000:.1f} ms of CPU, {self.clock * 1000:.1f} ms by the clock"
        )


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


async def stats_cost(worker: Worker) -> None:
    for size in SIZES:
        channel = f"room {size}"
        worker.enter(channel, size, gets_pushes=False)
        await worker.members.flush()
        took = []
        for _ in range(READS):
            began = time.perf_counter()
            found = await worker.store.stats(channel, MODE, sweeps=True)
            took.append(time.perf_counter() - began)
        assert found == (size, size // 2), found
        print(
            f"presence_stats, {size:6} members: median {statistics.median(took) * 1e6:.0f} us,"
            f" fastest {min(took) * 1e6:.0f} us, of {READS}"
        )


async def read_cost(worker: Worker) -> None:
    for size in SIZES:
        began = time.perf_counter()
        turns = Turns()
        found = await worker.store.entries(f"room {size}", MODE, max_bytes=16 << 20, sweeps=True)
        assert len(found) == size
        print(
            f"presence,       {size:6} members: {(time.perf_counter() - began) * 1000:.1f} ms, {turns.stop()}"
        )


async def renewal(worker: Worker) -> None:
    [channel] = [one for one in worker.members._channels.values() if len(one.members) == SIZES[1]]
    turns, began = Turns(), time.perf_counter()
    await worker.members._renew(channel)
    await worker.members.flush()
    renewed = worker.counters.presence_renewals["renewed"]
    print(
        f"renewal, {renewed} entries: {(time.perf_counter() - began) * 1000:.0f} ms, {turns.stop()}"
    )


async def storm(worker: Worker) -> None:
    """All members join at once, and each gets the joins of all."""
    await worker.broker.subscribe("storm")
    count, before = SIZES[1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clients = [StandIn(number) for number in range(count)]
    await asyncio.sleep(0)
    turns, began = Turns(), time.perf_counter()
    membership = membership_of(MODE, gets_pushes=True)
    for first in range(0, count, 500):
        # As the subscribes of 500 sockets that are read in one turn.
        for client in clients[first : first + 500]:
            worker.members.enter("storm", client, membership)
        await asyncio.sleep(0)
    await worker.members.flush()
    stored = time.perf_counter() - began
    await asyncio.sleep(STORM_SECONDS)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    counters = worker.counters
    print(
        f"storm, {count} join: stored after {stored * 1000:.0f} ms, {turns.stop()};"
        f" in {STORM_SECONDS:g} s {counters.messages_out} joins delivered"
        f" ({counters.bytes_out / 1e6:.0f} MB, {clients[0].received} bytes to one), "
        f"{counters.dropped['join_leave']} dropped; memory grew by {grown / 1024:.1f} MiB at most,"
        f" waiting {worker.pushes._waiting_bytes} bytes"
    )


async def measure(url: str) -> None:
    async with Worker(url).open() as worker:
        await stats_cost(worker)
        await read_cost(worker)
        await renewal(worker)
        await storm(worker)


@contextlib.contextmanager
def own_valkey() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "valkey.sock"
        command = [valkey_program(), "--port", "0", "--unixsocket", str(path), "--save", ""]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=scratch)
        try:
            deadline = time.monotonic() + 20
            while not path.exists():
                assert time.monotonic() < deadline, "Valkey has not started"
                time.sleep(0.05)
            yield f"unix://{path}"
        finally:
            process.terminate()
            process.wait(10)


def main() -> None:
    with own_valkey() as url:
        uvloop.run(measure(url))


if __name__ == "__main__":
    main()
