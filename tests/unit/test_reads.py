"""The reads in flight of one worker: bounded, each reader in order, the readers in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from cluster.errors import CONNECTION_CLOSED, ClientError
from cluster.metrics.counters import Counters
from cluster.node.reads import (
    PUBLICATION_COST_BYTES,
    READER_BURST_BYTES,
    READER_BYTES_PER_SECOND,
    READS_PER_READER,
    StreamReads,
)
from cluster.protocol import Publication
from tests.harness.waiting import until

WITHIN_SECONDS = 10.0


@dataclass
class Reading:
    """Reads that begin in some order and end when they are told to."""

    reads: StreamReads
    begun: list[str] = field(default_factory=list)
    ends: dict[str, asyncio.Event] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def ask(self, *names: str) -> None:
        """Begin a read for each name; its reader is the first letter."""
        for name in names:
            self.ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._read(name))

    async def _read(self, name: str) -> None:
        async with self.reads.turn(name[0]):
            self.begun.append(name)
            await self.ends[name].wait()

    async def until_begun(self, count: int) -> list[str]:
        await until(lambda: len(self.begun) >= count, 5, f"{count} have begun")
        return self.begun

    async def end_all(self) -> None:
        for end in self.ends.values():
            end.set()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        assert self.reads._readers == {}, "nothing is kept of readers that are done"
        assert self.reads._in_flight == 0


async def settled(is_true: Callable[[], bool]) -> None:
    for _ in range(20):
        await asyncio.sleep(0)
    assert is_true()


async def test_one_reader_has_a_few_reads_in_flight_and_the_rest_in_order():
    reading = Reading(StreamReads(100, Counters()))
    names = [f"a{number}" for number in range(10)]
    reading.ask(*names)
    await settled(lambda: reading.begun == names[:READS_PER_READER])
    for number, name in enumerate(names[: 10 - READS_PER_READER]):
        reading.ends[name].set()
        assert (
            await reading.until_begun(READS_PER_READER + number + 1)
            == names[: READS_PER_READER + number + 1]
        )
    await reading.end_all()


async def test_readers_take_turns_when_all_places_are_taken():
    counters = Counters()
    reading = Reading(StreamReads(1, counters))
    reading.ask("a0", "a1", "a2", "a3", "b0", "b1", "c0")
    for number in range(7):
        await reading.until_begun(number + 1)
        reading.ends[reading.begun[number]].set()
    assert reading.begun == ["a0", "a1", "b0", "c0", "a2", "b1", "a3"]
    assert counters.stream_reads["immediate"] == 1
    assert counters.stream_reads["queued"] == 6
    await reading.end_all()


async def test_a_reader_that_has_gone_waits_for_nothing():
    counters = Counters()
    reading = Reading(StreamReads(1, counters))
    reading.ask("a0", "b0", "b1", "c0")
    await settled(lambda: reading.begun == ["a0"])
    reading.reads.forget("b")
    await settled(lambda: reading.tasks["b0"].done() and reading.tasks["b1"].done())
    assert [reading.tasks[name].exception() for name in ("b0", "b1")] == [CONNECTION_CLOSED] * 2
    reading.ends["a0"].set()
    assert await reading.until_begun(2) == ["a0", "c0"]
    assert counters.stream_reads["dropped"] == 2
    await reading.end_all()


async def test_a_reader_that_is_held_waits_and_the_others_go_on():
    reading = Reading(StreamReads(2, Counters()))
    reading.reads.hold("a")
    reading.ask("a0", "a1", "b0")
    await settled(lambda: reading.begun == ["b0"])
    reading.reads.resume("a")
    assert await reading.until_begun(2) == ["b0", "a0"]
    await reading.end_all()


async def test_a_held_reader_that_goes_leaves_nothing_behind():
    reads = StreamReads(2, Counters())
    reads.hold("a")
    reads.forget("a")
    reads.hold("b")
    reads.resume("b")
    reads.resume("c")
    assert reads._readers == {}


async def test_a_cancelled_wait_gives_its_place_to_the_next():
    reading = Reading(StreamReads(1, Counters()))
    reading.ask("a0", "b0", "c0", "d0")
    await settled(lambda: reading.begun == ["a0"])
    reading.tasks["b0"].cancel()
    reading.ends["a0"].set()
    # In this turn of the loop c0 is given the place, and has not noticed yet.
    await asyncio.sleep(0)
    reading.tasks["c0"].cancel()
    assert await reading.until_begun(2) == ["a0", "d0"]
    await reading.end_all()


LARGE = [Publication(number, "e", b"x" * 1_000) for number in range(256)]
COST = sum(len(one.body) + PUBLICATION_COST_BYTES for one in LARGE)


async def read_large(reads: StreamReads, reader: str) -> None:
    async with reads.turn(reader):
        await reads.handled_alone(reader, LARGE)


async def read_until_paced(reads: StreamReads, counters: Counters, reader: str) -> int:
    number = 0
    while not counters.stream_reads["paced"]:
        await read_large(reads, reader)
        number += 1
    return number


async def test_a_reader_of_many_large_replies_waits_and_the_others_go_on():
    counters = Counters()
    reads = StreamReads(16, counters)
    loop = asyncio.get_running_loop()
    began = loop.time()
    at_once = await read_until_paced(reads, counters, "a")
    most = READER_BURST_BYTES + READER_BYTES_PER_SECOND * (loop.time() - began)
    assert READER_BURST_BYTES < at_once * COST <= most + COST
    await read_large(reads, "b")
    assert counters.stream_reads["queued"] == 0
    for _ in range(3):
        await read_large(reads, "a")
    read = (at_once + 3) * COST
    seconds = loop.time() - began
    # The last one may go into debt.
    assert read <= READER_BURST_BYTES + READER_BYTES_PER_SECOND * (seconds + 0.05) + COST
    assert counters.stream_reads["queued"] > 0


async def test_small_replies_are_not_paced():
    counters = Counters()
    reads = StreamReads(16, counters)
    number = READER_BURST_BYTES // COST * 40
    for _ in range(number):
        async with reads.turn("a"):
            await reads.handled_alone("a", LARGE[:10])
    assert counters.stream_reads == {**Counters().stream_reads, "immediate": number}
    assert reads._readers == {}


async def test_a_paced_reader_that_goes_leaves_nothing_behind():
    counters = Counters()
    reads = StreamReads(16, counters)
    await read_until_paced(reads, counters, "a")
    waits = asyncio.create_task(read_large(reads, "a"))
    await settled(lambda: counters.stream_reads["queued"] == 1)
    reads.forget("a")
    await settled(waits.done)
    assert waits.exception() == CONNECTION_CLOSED
    assert reads._readers == {}


async def test_what_a_reader_has_read_is_forgotten_in_time():
    reads = StreamReads(16, Counters())
    await read_large(reads, "a")
    assert list(reads._readers) == ["a"], "the next reads count with this one"
    await until(lambda: not reads._readers, 5, "the reader is forgotten")


async def test_a_reader_that_is_held_while_it_is_paced_waits_for_both():
    counters = Counters()
    reads = StreamReads(16, counters)
    await read_until_paced(reads, counters, "a")
    reads.hold("a")
    waits = asyncio.create_task(read_large(reads, "a"))
    await until(lambda: reads._readers["a"].timer is None, 5, "the pause is over")
    assert not waits.done()
    reads.resume("a")
    await waits


async def test_after_a_large_reply_a_reader_has_one_read_in_flight():
    counters = Counters()
    reads = StreamReads(16, counters)
    await read_large(reads, "a")
    in_flight: list[int] = []

    async def read() -> None:
        async with reads.turn("a"):
            in_flight.append(reads._readers["a"].in_flight)
            await asyncio.sleep(0)

    await asyncio.gather(*(read() for _ in range(READS_PER_READER)))
    assert in_flight == [1] * READS_PER_READER
    assert counters.stream_reads["paced"] == 0
    await read_until_paced(reads, counters, "a")
    await asyncio.gather(*(read() for _ in range(READS_PER_READER)))
    assert in_flight == [1] * READS_PER_READER * 2, "nor when a pause ends"


async def test_a_wait_for_a_turn_may_have_a_limit_and_leaves_nothing_behind():
    counters = Counters()
    reading = Reading(StreamReads(1, counters))
    reading.ask("a0")
    await settled(lambda: reading.begun == ["a0"])
    reading.reads.hold("c")
    for reader in ("b", "c"):
        with pytest.raises(ClientError, match="111"):
            async with reading.reads.turn(reader, within=0.01):
                raise AssertionError("it has no turn")
    assert set(reading.reads._readers) == {"a", "c"}
    reading.reads.resume("c")
    # The next one gets its turn, and what it does in it has no limit.
    waits = asyncio.create_task(read_slowly(reading.reads, "b"))
    await settled(lambda: counters.stream_reads["queued"] == 3)
    reading.ends["a0"].set()
    await waits
    await reading.end_all()


async def read_slowly(reads: StreamReads, reader: str) -> None:
    async with reads.turn(reader, within=WITHIN_SECONDS):
        await asyncio.sleep(0)
