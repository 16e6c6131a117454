"""What a channel keeps for its joiners: enough for each of them, and bounded however their joins overlap."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from cluster import joiners_tail
from cluster.hub import Channel, Hub
from cluster.joiners_tail import Tail
from cluster.metrics.counters import Counters
from cluster.protocol import Position, Publication
from tests.harness.waiting import until
from tests.unit.local_worker import (
    RECOVERABLE,
    WITHIN_SECONDS,
    Caller,
    LocalWorker,
    ask,
    configured,
    entered,
    published,
)
from tests.unit.test_hub import E, Reader, join, pubs


@pytest.fixture
def hub() -> Hub:
    return Hub(Counters())


def tail_of(channel: Channel) -> Tail:
    assert channel.tail is not None
    return channel.tail


def begun(hub: Hub) -> tuple[Channel, int]:
    channel, _ = hub.join_begin("c", is_positioned=True)
    return channel, channel.newest_start


class DelayedReads:
    """Reads of a worker's streams whose answers are kept until they are let go, one by one."""

    def __init__(self, worker: LocalWorker) -> None:
        self.answers: list[asyncio.Event] = []
        self._read = worker.broker.read
        worker.broker.read = self._delayed  # type: ignore[method-assign]

    async def _delayed(self, *args: Any, **options: Any) -> Any:
        answer = await self._read(*args, **options)
        self.answers.append(asyncio.Event())
        await self.answers[-1].wait()
        return answer

    async def until_read(self, count: int) -> None:
        await until(lambda: len(self.answers) == count, WITHIN_SECONDS, "it is read")


async def test_recoveries_that_overlap_without_an_end_keep_only_what_they_may_miss():
    rounds, each = 12, 5
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        publisher, live = await entered(worker), await entered(worker)
        await published(publisher, 1)
        await ask(live, "subscribe", channel="a")
        epoch = worker.store.streams["a"].epoch
        channel = worker.node.hub.channels["a"]
        reads = DelayedReads(worker)
        joiners: list[Caller] = []
        for number in range(rounds):
            joiners.append(await entered(worker))
            offset = channel.offset - 1
            position = {"recover": True, "offset": offset, "epoch": epoch}
            joiners[-1].say({"id": 2, "subscribe": {"channel": "a"} | position})
            await reads.until_read(number + 1)
            if number:
                # The one before ends only now.
                reads.answers[number - 1].set()
                await joiners[number - 1].reply(2)
            assert channel.joining == 1
            await published(publisher, each, first=2 + number * each)
            assert len(tail_of(channel)) <= 2 * each
        reads.answers[-1].set()
        await joiners[-1].reply(2)
        for number, joiner in enumerate(joiners):
            await joiner.until(lambda joiner=joiner: rounds * each + 1 in joiner.pubs())  # type: ignore[misc]
            first = 2 + number * each
            assert joiner.pubs() == list(range(first, rounds * each + 2))
        assert channel.tail is None


def test_a_tail_is_bounded_while_a_join_takes_long(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(joiners_tail, "TAIL_LIMIT", 10)
    first, late, later = Reader(), Reader(), Reader()
    channel = join(hub, first, 0)
    _, start = begun(hub)
    hub.deliver("c", pubs(1, 8))
    _, later_start = begun(hub)
    hub.deliver("c", pubs(9, 15))
    assert len(tail_of(channel)) == 10
    assert hub.join(channel, later, later.write, Position(8, E), start=later_start)
    assert later.got == list(range(9, 16))
    assert not hub.join(channel, late, late.write, Position(0, E), start=start)
    assert late.got == []
    assert channel.tail is None


def test_the_bytes_of_a_tail_are_bounded_and_one_large_publication_is_kept(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(joiners_tail, "TAIL_BYTES", 1000)
    written: list[bytes] = []
    channel, _ = hub.join_begin("c", is_positioned=True)
    hub.join(channel, "one", written.append, Position(0, E))
    begun(hub)
    for offset in range(1, 101):
        hub.deliver("c", pubs(offset, offset))
    assert 900 < tail_of(channel).bytes <= 1000
    hub.deliver("c", [Publication(101, E, b'{"data":"%b"}' % (b"x" * 5000))])
    assert (len(tail_of(channel)), tail_of(channel).bytes) == (1, len(written[-1]))
    hub.deliver("c", pubs(102, 102))
    assert (len(tail_of(channel)), tail_of(channel).bytes) == (1, len(written[-1]))


def test_a_joiner_that_is_given_up_keeps_nothing_any_more(hub: Hub):
    reader = Reader()
    channel = join(hub, reader, 0)
    _, oldest = begun(hub)
    hub.deliver("c", pubs(1, 50))
    begun(hub)
    hub.deliver("c", pubs(51, 52))
    hub.join_abort(channel, oldest)
    assert len(tail_of(channel)) == 2


def test_nothing_is_kept_of_a_position_from_which_the_channel_has_jumped(hub: Hub):
    first, joiner = Reader(), Reader()
    channel = join(hub, first, 10)
    _, start = begun(hub)
    hub.deliver("c", pubs(11, 12))
    # A replica without the last publications has become the master: the stream goes on at a lower offset.
    hub.hold(channel)
    assert not hub.fill(channel, Position(8, E), [], held_before=0)
    hub.release(channel)
    hub.deliver("c", pubs(9, 9))
    # Three are after its read by their number, and two of them are not those that it misses.
    assert not hub.join(channel, joiner, joiner.write, Position(6, E), start=start)
    assert joiner.got == []


class _Law:
    """Random joiners of a channel whose stream is known: each gets what follows its read, or is told."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.hub = Hub(Counters())
        self.top = 0
        self.channel = join(self.hub, Reader(), 0)
        self.joining: list[tuple[int, int]] = []
        self.subscribed: list[tuple[Reader, int]] = []
        self.told = 0

    def publish(self) -> None:
        last = self.top + self.random.randint(1, 4)
        self.hub.deliver("c", pubs(self.top + 1, last))
        self.top = last

    def begin(self) -> None:
        # Its read is made a little later, or the channel is a little behind.
        _, start = begun(self.hub)
        self.joining.append((self.top, start))

    def join(self) -> None:
        if self.joining:
            top, start = self.joining.pop(self.random.randrange(len(self.joining)))
            reader = Reader()
            if self.hub.join(self.channel, reader, reader.write, Position(top, E), start=start):
                self.subscribed.append((reader, top))
            else:
                self.told += 1

    def abort(self) -> None:
        if self.joining:
            _, start = self.joining.pop(self.random.randrange(len(self.joining)))
            self.hub.join_abort(self.channel, start)

    def run(self, steps: int) -> None:
        moves: list[Callable[[], None]] = [
            self.publish,
            self.begin,
            self.begin,
            self.join,
            self.abort,
        ]
        for _ in range(steps):
            self.random.choice(moves)()
            if self.joining:
                kept = len(tail_of(self.channel))
                assert kept <= min(joiners_tail.TAIL_LIMIT, self.top - min(self.joining)[0])
        while self.joining:
            self.join()
        assert self.channel.tail is None
        for reader, top in self.subscribed:
            assert reader.got == list(range(top + 1, self.top + 1))


def test_a_joiner_gets_all_that_follows_its_read_or_is_told(monkeypatch: pytest.MonkeyPatch):
    told = []
    for limit in (6, 10_000):
        monkeypatch.setattr(joiners_tail, "TAIL_LIMIT", limit)
        laws = [_Law(seed) for seed in range(40)]
        for law in laws:
            law.run(150)
        told.append(sum(law.told for law in laws))
        assert sum(len(law.subscribed) for law in laws) > 100
    assert told[0] > 100
    assert told[1] == 0
