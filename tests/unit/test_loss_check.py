"""The comparison with a new master: what is compared, when again, and what a failure leaves to the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from cluster.broker import Acknowledged, HistoryPolicy, StreamRead
from cluster.broker.loss_check import LossCheck
from cluster.metrics.counters import Counters
from cluster.protocol import Position
from tests.contract.fakes import MemoryBroker, MemoryStore
from tests.contract.stores import Recorder
from tests.harness.waiting import until

KEEP = HistoryPolicy(10, 60_000, 600_000)
AT = 100.0
WITHIN_SECONDS = 10.0


class Remembering(MemoryBroker):
    """A broker that remembers what it is told to, and whose reads can be held."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store, Recorder())
        self.known: dict[str, Acknowledged] = {}
        self.reads: list[str] = []
        self.reading = self.most_reading = 0
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    def remembered(self, shard: object) -> dict[str, Acknowledged]:
        return dict(self.known)

    async def read(self, channel: str, history: HistoryPolicy, **options: Any) -> StreamRead:
        self.reads.append(channel)
        self.reading += 1
        self.most_reading = max(self.most_reading, self.reading)
        try:
            await self.goes_on.wait()
            return await super().read(channel, history, **options)
        finally:
            self.reading -= 1


class Bench:
    """One worker's comparison, and the store it is with."""

    def __init__(self, *, timeout_seconds: float = 6 * WITHIN_SECONDS) -> None:
        self.store = MemoryStore()
        self.broker = Remembering(self.store)
        self.counters = Counters()
        self.check = LossCheck(
            cast(Any, self.broker), self.counters, timeout_seconds=timeout_seconds
        )

    def acknowledge(self, channel: str, *, at: float = AT, count: int = 3) -> None:
        """Publish, and remember the last of it."""
        for number in range(count):
            publication = self.store.append(channel, b"%d" % number, KEEP, 0)
        position = Position(publication.offset, publication.epoch)
        self.broker.known[channel] = Acknowledged(position, hash(publication.body), at)

    def lose(self, channel: str) -> None:
        """The stream lacks its last publication."""
        stream = self.store.streams[channel]
        stream.entries.pop()
        stream.top -= 1

    def forget(self, channel: str) -> None:
        """The stream has its offsets, and none of its publications."""
        self.store.streams[channel].entries.clear()

    def connect(self, data: str | None, *, address: str = "one:6379") -> None:
        commands = SimpleNamespace(identity=SimpleNamespace(replication_id=data))
        self.check.connected(cast(Any, SimpleNamespace(address=address, commands=commands)))

    async def compared(self) -> None:
        await until(lambda: not comparisons(), WITHIN_SECONDS, "all is compared")

    def ended(self) -> set[str]:
        """The channels that have another epoch than what is remembered."""
        known = self.broker.known.items()
        return {name for name, one in known if self.store.streams[name].epoch != one.position.epoch}

    @property
    def errors(self) -> int:
        return self.counters.errors["broker"]


def comparisons() -> list[asyncio.Task[Any]]:
    return [one for one in asyncio.all_tasks() if one.get_name() == "losses" and not one.done()]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.check.aclose()


async def test_every_channel_is_compared_a_hundred_at_a_time_and_only_those_with_losses_end(
    bench: Bench,
):
    for number in range(250):
        bench.acknowledge(f"c{number}")
    lost = {f"c{number}" for number in (0, 99, 100, 150, 199, 249)}
    for channel in lost:
        bench.lose(channel)
    with capture_logs() as logs:
        bench.connect("new")
        await bench.compared()
    assert sorted(bench.broker.reads) == sorted(bench.broker.known)
    assert bench.broker.most_reading == 100
    assert bench.ended() == lost
    assert bench.errors == len(lost)
    [found] = [one for one in logs if one["event"] == "acknowledged_publications_lost"]
    assert (found["server"], found["channels"]) == ("one:6379", len(lost))


async def test_a_comparison_that_finds_nothing_is_neither_counted_nor_logged(bench: Bench):
    bench.acknowledge("c")
    with capture_logs() as logs:
        bench.connect("new")
        await bench.compared()
    assert (bench.ended(), bench.errors, logs) == (set(), 0, [])


async def test_of_the_last_ten_seconds_a_stream_must_have_the_proof_and_of_older_ones_not(
    bench: Bench,
):
    for channel, at in (("last", AT), ("at the edge", AT - 10), ("older", AT - 10.001)):
        bench.acknowledge(channel, at=at)
        bench.forget(channel)
    bench.connect("new")
    await bench.compared()
    assert bench.ended() == {"last", "at the edge"}


async def test_one_loss_is_counted(bench: Bench):
    bench.acknowledge("c")
    bench.lose("c")
    bench.connect("new")
    await bench.compared()
    assert (bench.ended(), bench.errors) == ({"c"}, 1)


async def test_a_channel_that_the_store_does_not_know_is_not_made_by_comparing(bench: Bench):
    bench.acknowledge("c")
    bench.store.streams.clear()
    bench.connect("new")
    await bench.compared()
    assert bench.broker.reads == ["c"]
    assert bench.store.streams == {}


async def test_data_is_compared_once_for_each_address(bench: Bench):
    bench.acknowledge("c")
    for data, address, count in (
        ("new", "one:6379", 1),
        ("new", "one:6379", 1),
        ("new", "two:6379", 2),
        ("new", "one:6379", 2),
        ("newer", "one:6379", 3),
        ("new", "one:6379", 4),
    ):
        bench.connect(data, address=address)
        await bench.compared()
        assert len(bench.broker.reads) == count


async def test_a_server_that_does_not_say_what_data_it_has_is_compared_each_time(bench: Bench):
    bench.acknowledge("c")
    for count in (1, 2):
        bench.connect(None)
        await bench.compared()
        assert len(bench.broker.reads) == count


async def test_with_nothing_remembered_there_is_no_comparison_and_no_read(bench: Bench):
    bench.connect("new")
    assert comparisons() == []
    bench.acknowledge("c")
    bench.connect("new")
    assert comparisons() == []


async def test_a_comparison_ends_where_that_with_the_next_master_begins(bench: Bench):
    bench.acknowledge("c")
    bench.lose("c")
    bench.broker.goes_on.clear()
    bench.connect("new")
    await until(lambda: bench.broker.reading == 1, WITHIN_SECONDS, "the first compares")
    bench.connect("newer")
    await until(lambda: len(bench.broker.reads) == 2, WITHIN_SECONDS, "the second compares")
    await until(lambda: bench.broker.reading == 1, WITHIN_SECONDS, "the first has ended")
    bench.broker.goes_on.set()
    await bench.compared()
    assert (bench.ended(), bench.errors) == ({"c"}, 1)


async def test_a_comparison_ends_although_nothing_is_remembered_any_more(bench: Bench):
    bench.acknowledge("c")
    bench.broker.goes_on.clear()
    bench.connect("new")
    await until(lambda: bench.broker.reading == 1, WITHIN_SECONDS, "the first compares")
    bench.broker.known.clear()
    bench.connect("newer")
    await bench.compared()
    assert bench.broker.reading == 0


async def test_a_comparison_that_the_store_refuses_is_made_again_by_the_next_connection(
    bench: Bench,
):
    bench.acknowledge("c")
    bench.lose("c")
    bench.store.is_up = False
    bench.connect("new")
    await bench.compared()
    assert (bench.ended(), bench.errors) == (set(), 0)
    bench.store.is_up = True
    bench.connect("new")
    await bench.compared()
    assert (bench.ended(), bench.errors) == ({"c"}, 1)


async def test_a_comparison_that_gets_no_answer_in_time_is_made_again_by_the_next_connection():
    bench = Bench(timeout_seconds=0.01)
    bench.acknowledge("c")
    bench.lose("c")
    bench.broker.goes_on.clear()
    bench.connect("new")
    await bench.compared()
    bench.broker.goes_on.set()
    bench.connect("new")
    await bench.compared()
    assert (bench.ended(), bench.errors) == ({"c"}, 1)


async def test_what_was_found_before_the_store_failed_is_counted(bench: Bench):
    for number in range(101):
        bench.acknowledge(f"c{number}")
    bench.lose("c0")
    read = bench.broker.read

    async def failing(channel: str, history: HistoryPolicy, **options: Any) -> StreamRead:
        bench.store.is_up = channel != "c100"
        return await read(channel, history, **options)

    bench.broker.read = failing  # type: ignore[method-assign]
    bench.connect("new")
    await bench.compared()
    bench.store.is_up = True
    assert (bench.ended(), bench.errors) == ({"c0"}, 1)


async def test_closing_ends_what_is_being_compared(bench: Bench):
    bench.acknowledge("c")
    bench.broker.goes_on.clear()
    for address in ("one:6379", "two:6379"):
        bench.connect("new", address=address)
    await until(lambda: bench.broker.reading == 2, WITHIN_SECONDS, "both compare")
    async with asyncio.timeout(WITHIN_SECONDS):
        await bench.check.aclose()
    assert comparisons() == []
    assert bench.broker.reading == 0
