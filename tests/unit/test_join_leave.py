"""The pushes of joins and leaves: made once per turn, bounded per turn, per channel and per worker."""

from __future__ import annotations

import asyncio

import pytest

from cluster.metrics.counters import Counters
from cluster.node import join_leave
from cluster.node.join_leave import JoinLeavePushes
from tests.harness.waiting import until

WITHIN = 20.0


class Recorded:
    """A subscriber that keeps what is written to it."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.frames.append(data)

    @property
    def pushes(self) -> int:
        return sum(frame.count(b'{"push":') for frame in self.frames)


class Broken(Recorded):
    def write(self, data: bytes) -> None:
        raise RuntimeError("the socket is broken")


def joins(count: int, size: int = 100) -> list[bytes]:
    return [b'j{"user":"","client":"%0*d"}' % (size, number) for number in range(count)]


def watched(pushes: JoinLeavePushes, count: int, channel: str = "a") -> list[Recorded]:
    watchers = [Recorded() for _ in range(count)]
    for watcher in watchers:
        pushes.watch(channel, watcher)
    return watchers


async def test_what_one_turn_brings_is_one_frame_in_order():
    pushes = JoinLeavePushes(Counters())
    [watcher] = watched(pushes, 1)
    pushes.receive("a", [b'j{"user":"ann"}'])
    pushes.receive("a", [b'l{"user":"ann"}', b'j{"user":"bob"}'])
    await until(lambda: bool(watcher.frames), WITHIN, "it is written")
    assert watcher.frames[0][2:] == (
        b'{"push":{"channel":"a","join":{"info":{"user":"ann"}}}}\n'
        b'{"push":{"channel":"a","leave":{"info":{"user":"ann"}}}}\n'
        b'{"push":{"channel":"a","join":{"info":{"user":"bob"}}}}'
    ) or watcher.frames[0][4:].startswith(b'{"push":{"channel":"a","join"')
    assert len(watcher.frames) == 1


async def test_a_channel_that_nobody_watches_costs_nothing():
    counters = Counters()
    pushes = JoinLeavePushes(counters)
    pushes.receive("a", joins(10))
    assert (pushes._waiting_bytes, counters.dropped["join_leave"]) == (0, 0)


async def test_a_turn_of_the_loop_writes_to_so_many_and_the_others_follow():
    counters = Counters()
    pushes = JoinLeavePushes(counters)
    watchers = watched(pushes, 3 * join_leave.WRITES_PER_TURN)
    pushes.receive("a", joins(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    reached = sum(watcher.pushes for watcher in watchers)
    assert 0 < reached < len(watchers), "more than one turn"
    await until(lambda: all(one.pushes == 1 for one in watchers), WITHIN, "all are reached")
    assert counters.messages_out == len(watchers)
    assert counters.bytes_out == sum(len(one.frames[0]) for one in watchers)


async def test_one_that_leaves_in_between_gets_nothing_more_and_a_broken_one_stops_nobody():
    counters = Counters()
    pushes = JoinLeavePushes(counters)
    pushes.watch("a", Broken())
    watchers = watched(pushes, 2 * join_leave.WRITES_PER_TURN)
    pushes.receive("a", joins(1))
    await asyncio.sleep(0)
    pushes.unwatch("a", watchers[-1])
    await until(lambda: watchers[-2].pushes == 1, WITHIN, "the last one is reached")
    assert watchers[-1].pushes == 0
    assert counters.dropped["closed"] == 1


async def test_a_storm_waits_up_to_its_bound_and_what_is_dropped_is_counted_per_subscriber():
    counters = Counters()
    pushes = JoinLeavePushes(counters)
    watchers = watched(pushes, 2)
    # Ten times as much as may wait.
    events = joins(10 * join_leave.CHANNEL_WAITING_BYTES // 10_000, size=10_000)
    pushes.receive("a", events)
    assert pushes._waiting_bytes <= join_leave.CHANNEL_WAITING_BYTES
    dropped = counters.dropped["join_leave"]
    assert dropped == 2 * (len(events) - join_leave.CHANNEL_WAITING_BYTES // len(events[0]))
    await until(lambda: pushes._waiting_bytes == 0, WITHIN, "all that waited is sent")
    assert [one.pushes * 2 + dropped for one in watchers] == [2 * len(events)] * 2


async def test_a_channel_sends_so_many_bytes_a_second_to_a_subscriber():
    pushes = JoinLeavePushes(Counters())
    [watcher] = watched(pushes, 1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    pushes.receive("a", joins(40, size=10_000))
    await until(lambda: watcher.pushes == 40, WITHIN, "all are sent")
    sent = sum(map(len, watcher.frames))
    # The last frame needs no time after it.
    least = (sent - join_leave.FRAME_BYTES - 20_000) / join_leave.CHANNEL_BYTES_PER_SECOND
    assert loop.time() - began > least
    assert max(map(len, watcher.frames)) < 2 * join_leave.FRAME_BYTES


async def test_the_worker_sends_so_many_bytes_a_second_and_a_busy_channel_delays_no_other(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(join_leave, "WORKER_BYTES_PER_SECOND", 100_000)
    counters = Counters()
    pushes = JoinLeavePushes(counters)
    crowd = watched(pushes, 100)
    [other] = watched(pushes, 1, channel="b")
    pushes.receive("a", joins(1000))
    assert pushes._waiting_bytes <= 2 * 100_000 / len(crowd), (
        "what waits is sent within two seconds"
    )
    pushes.receive("b", joins(1))
    await until(lambda: other.pushes == 1, WITHIN, "the other channel is served")
    assert counters.bytes_out <= 2 * 100_000
    assert all(one.pushes < 1000 for one in crowd)


async def test_what_waits_is_forgotten_with_the_last_subscriber():
    pushes = JoinLeavePushes(Counters())
    [watcher] = watched(pushes, 1)
    pushes.receive("a", joins(100, size=10_000))
    pushes.unwatch("a", watcher)
    pushes.unwatch("a", watcher)
    assert pushes._waiting_bytes == 0
    assert pushes._channels == {}
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert watcher.frames == []


async def test_a_channel_that_becomes_due_while_another_waits_is_served_at_once():
    pushes = JoinLeavePushes(Counters())
    [slow] = watched(pushes, 1)
    [quick] = watched(pushes, 1, channel="b")
    pushes.receive("a", joins(20, size=25_000))
    await until(lambda: bool(slow.frames), WITHIN, "the first frame")
    pushes.receive("b", joins(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert quick.pushes == 1
    assert slow.pushes < 20
