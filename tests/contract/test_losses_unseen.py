"""What was acknowledged is compared with each new master, also in channels that nobody is subscribed to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.broker import Acknowledged, HistoryPolicy, StreamRead
from cluster.broker import redis_broker as redis_broker_module
from cluster.broker.loss_check import is_lost
from cluster.protocol import Position, Publication
from tests.contract.conftest import program
from tests.contract.servers import Server
from tests.contract.stores import KEEP, WAIT_SECONDS, RedisBench, Worker
from tests.contract.test_failover import in_step
from tests.harness.proxy import FaultProxy
from tests.harness.waiting import until

KINDS = pytest.mark.parametrize("kind", ["valkey", "redis"])
SHORT = HistoryPolicy(1, 60_000, 600_000)


class Failing:
    """Two servers behind one address, and a worker that has acknowledged only at the first."""

    def __init__(self, master: Server, replica: Server, proxy: FaultProxy, bench: RedisBench):
        self.master, self.replica, self.proxy, self.bench = master, replica, proxy, bench
        self.worker: Worker

    async def split(self) -> None:
        """From here on the replica gets nothing."""
        await asyncio.to_thread(self.replica.ask, "REPLICAOF", "NO", "ONE")

    async def end(self) -> None:
        """The replica takes over."""
        self.proxy.target = self.replica.port
        await asyncio.to_thread(self.master.ask, "REPLICAOF", "127.0.0.1", str(self.replica.port))
        [shard] = self.worker.parts.router.shards
        shard.commands.reset()
        shard.subscriptions.reset()
        new = self.replica.ask("INFO", "replication")["master_replid"]
        await until(
            lambda: shard.is_up and shard.commands.identity.replication_id == new,
            WAIT_SECONDS,
            "the worker uses the new master",
        )

    def epoch(self, channel: str = "c") -> str:
        epoch = self.replica.ask("HGET", self.bench.key(channel, "meta"), "e")
        return "" if epoch is None else str(epoch, "ascii")


@pytest.fixture
async def failing(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Failing]:
    kind = request.getfixturevalue("kind")
    with Server(program(kind), tmp_path / "master") as master:
        options = ("--replicaof", f"127.0.0.1 {master.port}")
        with Server(program(kind), tmp_path / "replica", options=options) as replica:
            await in_step(replica)
            async with FaultProxy(master.port) as proxy:
                bench = RedisBench([master], urls=[f"redis://127.0.0.1:{proxy.port}"])
                made = Failing(master, replica, proxy, bench)
                try:
                    made.worker = await bench.worker()
                    yield made
                finally:
                    await bench.aclose()


async def replicated(failing: Failing, position: Position) -> None:
    key = failing.bench.key("c", "meta")
    await until(
        lambda: failing.replica.ask("HGET", key, "o") == b"%d" % position.offset,
        WAIT_SECONDS,
        "the replica has it",
    )


async def again(failing: Failing, count: int) -> None:
    """Another worker publishes at the new master before this one has seen it."""
    url = f"redis://127.0.0.1:{failing.replica.port}"
    other = await failing.bench.worker(urls=[url])
    for number in range(count):
        await other.publish(b'{"data":"anew %d"}' % number)


@KINDS
@pytest.mark.parametrize(("lost", "anew"), [(1, 0), (1, 1), (2, 1), (1, 3), (3, 3)])
async def test_what_was_acknowledged_and_lost_ends_the_epoch(
    kind: str, failing: Failing, lost: int, anew: int
):
    position = await failing.worker.publish()
    await replicated(failing, position)
    await failing.split()
    for number in range(lost):
        await failing.worker.publish(b'{"data":"lost %d"}' % number)
    await again(failing, anew)
    assert failing.epoch() == position.epoch
    await failing.end()
    await until(lambda: failing.epoch() != position.epoch, WAIT_SECONDS, "the epoch is ended")
    await until(
        lambda: failing.worker.parts.counters.errors["broker"] == 1, WAIT_SECONDS, "it is counted"
    )


@KINDS
async def test_what_was_delivered_before_the_last_subscriber_left_is_compared(
    kind: str, failing: Failing
):
    worker, other = failing.worker, await failing.bench.worker()
    position = await other.publish()
    await replicated(failing, position)
    await failing.split()
    await worker.subscribe()
    await other.publish(b'{"data":"lost"}')
    await worker.recorder.until(lambda: len(worker.recorder.received) == 1)
    _, got = worker.recorder.received[0]
    here = Position(got.offset, got.epoch)
    worker.broker.unsubscribe(
        "c", Acknowledged(here, hash(got.body), asyncio.get_running_loop().time())
    )
    # The worker that has published it dies with the master.
    failing.bench._parts.remove(other.parts)
    await other.parts.aclose()
    await again(failing, 2)
    await failing.end()
    await until(lambda: failing.epoch() != position.epoch, WAIT_SECONDS, "the epoch is ended")


@KINDS
async def test_a_failover_that_has_lost_nothing_ends_no_epoch(kind: str, failing: Failing):
    worker = failing.worker
    for number in range(150):
        position = await worker.publish(channel=f"c{number}")
    last = await worker.publish()
    await replicated(failing, last)
    await failing.split()
    await again(failing, 3)
    await failing.end()
    await until(lambda: not any_left(worker), WAIT_SECONDS, "all is compared")
    assert failing.epoch() == last.epoch
    assert failing.epoch("c149") == position.epoch
    assert worker.parts.counters.errors["broker"] == 0


def any_left(worker: Worker) -> bool:
    return any(not task.done() for task in worker.parts.loss_check._tasks.values())


@KINDS
async def test_a_comparison_that_another_failover_interrupts_is_made_again(
    kind: str, failing: Failing
):
    position = await failing.worker.publish()
    await replicated(failing, position)
    await failing.split()
    await failing.worker.publish(b'{"data":"lost"}')
    # A server that answers no read of a stream.
    failing.replica.ask("SCRIPT", "FLUSH")
    failing.replica.ask("ACL", "SETUSER", "default", "-eval", "-evalsha")
    await failing.end()
    await until(lambda: not any_left(failing.worker), WAIT_SECONDS, "it has not worked")
    assert failing.epoch() == position.epoch
    failing.replica.ask("ACL", "SETUSER", "default", "+eval", "+evalsha")
    failing.worker.parts.router.shards[0].commands.reset()
    await until(lambda: failing.epoch() != position.epoch, WAIT_SECONDS, "the epoch is ended")


async def test_a_connection_to_the_same_data_compares_nothing(own: RedisBench):
    worker = await own.worker()
    await worker.publish()
    [shard] = worker.parts.router.shards
    compared = dict(worker.parts.loss_check._compared)
    before = shard.commands._connection
    shard.commands.reset()
    await until(
        lambda: shard.commands.is_up and shard.commands._connection is not before,
        WAIT_SECONDS,
        "it is connected again",
    )
    assert worker.parts.loss_check._compared == compared
    assert not worker.parts.loss_check._tasks


async def test_a_comparison_keeps_nothing_longer(own: RedisBench):
    worker = await own.worker()
    await worker.publish()
    for part in ("meta", "stream"):
        own.servers[0].ask("PEXPIRE", own.key("c", part), "50000")
    [shard] = worker.parts.router.shards
    worker.parts.loss_check._compared.clear()
    worker.parts.loss_check.connected(shard)
    assert any_left(worker)
    await until(lambda: not any_left(worker), WAIT_SECONDS, "all is compared")
    assert 0 < await own.life_of_position() <= 50_000
    assert 0 < own.servers[0].ask("PTTL", own.key("c", "stream")) <= 50_000
    assert worker.parts.counters.errors["broker"] == 0


async def test_what_is_remembered_is_bounded(own: RedisBench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(redis_broker_module, "REMEMBERED", 50)
    worker = await own.worker()
    for number in range(180):
        await worker.publish(channel=f"c{number}", history=KEEP if number % 2 else SHORT)
    [shard] = worker.parts.router.shards
    remembered = worker.broker.remembered(shard)  # type: ignore[attr-defined]
    assert 50 <= len(remembered) <= 100
    assert "c179" in remembered
    assert "c0" not in remembered


ONE = Acknowledged(Position(7, "old"), hash(b"seven"), 0.0)


@pytest.mark.parametrize(
    ("top", "first", "must_be_there", "lost"),
    [
        (Position(7, "old"), Publication(7, "old", b"seven"), True, False),
        (Position(9, "old"), Publication(7, "old", b"seven"), True, False),
        (Position(6, "old"), None, False, True),
        (Position(0, "old"), None, False, True),
        (Position(7, "old"), Publication(7, "old", b"other"), False, True),
        (Position(9, "old"), Publication(9, "old", b"nine"), True, True),
        (Position(9, "old"), Publication(9, "old", b"nine"), False, False),
        (Position(7, "old"), None, True, True),
        (Position(3, "new"), None, True, False),
        (Position(0, ""), None, True, False),
    ],
)
def test_what_counts_as_lost(
    top: Position, first: Publication | None, must_be_there: bool, lost: bool
):
    read = StreamRead(top, [] if first is None else [first])
    assert is_lost(ONE, read, must_be_there=must_be_there) is lost
