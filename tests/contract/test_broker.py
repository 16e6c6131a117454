"""The contract of the broker: what `cluster.broker.Broker` promises with every kind of store."""

from __future__ import annotations

import asyncio

import pytest

from cluster.broker import HistoryPolicy
from cluster.errors import StoreUnavailable
from cluster.protocol import Position
from tests.contract.stores import FORGET, KEEP, Bench, Worker


def body(number: int) -> bytes:
    return b'{"data":%d}' % number


async def test_offsets_count_from_1_and_share_an_epoch(bench: Bench):
    worker = await bench.worker()
    positions = [await worker.publish(body(number)) for number in range(3)]
    assert [position.offset for position in positions] == [1, 2, 3]
    assert len({position.epoch for position in positions}) == 1
    assert positions[0].epoch


async def test_a_channel_without_history_has_no_position(bench: Bench):
    worker = await bench.worker()
    await worker.subscribe()
    assert await worker.publish(history=FORGET) == Position(0, "")
    await worker.recorder.until(lambda: worker.recorder.offsets() == [0])
    assert worker.recorder.received[0][1].epoch == ""


async def test_an_unused_stream_has_an_epoch_and_offset_0_and_keeps_them(bench: Bench):
    worker = await bench.worker()
    read = await worker.broker.read("c", KEEP)
    again = await worker.broker.read("c", KEEP)
    assert (read.top.offset, read.publications) == (0, [])
    assert read.top.epoch
    assert again.top == read.top
    assert await worker.publish() == Position(1, read.top.epoch)


async def test_what_is_published_is_received_by_every_worker_with_its_position(bench: Bench):
    speaker, one, two = [await bench.worker() for _ in range(3)]
    await one.subscribe()
    await two.subscribe()
    position = await speaker.publish(body(7))
    for worker in (one, two):
        await worker.recorder.until(lambda worker=worker: bool(worker.recorder.received))  # type: ignore[misc]
        [(channel, publication)] = worker.recorder.received
        assert (channel, publication.body, publication.accepted_ms) == ("c", body(7), 1234)
        assert (publication.offset, publication.epoch) == position
    assert speaker.recorder.received == []


@pytest.mark.parametrize("history", [KEEP, FORGET], ids=["kept", "not kept"])
async def test_the_publishes_of_one_worker_keep_their_order(bench: Bench, history: HistoryPolicy):
    speaker, listener = await bench.worker(), await bench.worker()
    await listener.subscribe()
    wanted = [body(number) for number in range(200)]
    await asyncio.gather(*(speaker.publish(one, history=history) for one in wanted))
    await listener.recorder.until(lambda: len(listener.recorder.received) == 200)
    assert listener.recorder.bodies() == wanted


async def test_stream_and_subscription_agree_when_several_publish(bench: Bench):
    speakers = [await bench.worker() for _ in range(3)]
    listener = await bench.worker()
    await listener.subscribe()
    await asyncio.gather(
        *(speaker.publish(body(n * 3 + i)) for n in range(20) for i, speaker in enumerate(speakers))
    )
    await listener.recorder.until(lambda: len(listener.recorder.received) == 60)
    read = await listener.broker.read("c", KEEP, since=0, limit=-1)
    assert listener.recorder.offsets() == list(range(1, 61))
    assert listener.recorder.bodies() == [publication.body for publication in read.publications]


async def test_a_stream_keeps_exactly_its_size(bench: Bench):
    worker = await bench.worker()
    history = HistoryPolicy(7, 60_000, 600_000)
    for number in range(20):
        await worker.publish(body(number), history=history)
    read = await worker.broker.read("c", history, limit=-1)
    assert [publication.offset for publication in read.publications] == list(range(14, 21))
    assert read.top.offset == 20


async def test_a_stream_follows_a_size_that_changes(bench: Bench):
    worker = await bench.worker()
    for number in range(9):
        await worker.publish(body(number))
    await worker.publish(body(9), history=KEEP._replace(size=2))
    read = await worker.broker.read("c", KEEP, limit=-1)
    assert [publication.offset for publication in read.publications] == [9, 10]


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ({}, []),
        ({"limit": 2}, [1, 2]),
        ({"limit": -1}, [1, 2, 3, 4, 5]),
        ({"limit": -1, "since": 3}, [4, 5]),
        ({"limit": 1, "since": 3}, [4]),
        ({"limit": -1, "since": 0}, [1, 2, 3, 4, 5]),
        ({"limit": -1, "since": 5}, []),
        ({"limit": -1, "since": 99}, []),
        ({"limit": -1, "reverse": True}, [5, 4, 3, 2, 1]),
        ({"limit": 2, "reverse": True}, [5, 4]),
        ({"limit": 2, "since": 4, "reverse": True}, [3, 2]),
        ({"limit": -1, "since": 1, "reverse": True}, []),
    ],
    ids=str,
)
async def test_a_read_gives_the_top_and_what_was_asked_for(
    bench: Bench, question: dict[str, int], wanted: list[int]
):
    worker = await bench.worker()
    for number in range(5):
        last = await worker.publish(body(number))
    read = await worker.broker.read("c", KEEP, **question)  # type: ignore[arg-type]
    assert [publication.offset for publication in read.publications] == wanted
    assert [publication.body for publication in read.publications] == [body(n - 1) for n in wanted]
    assert read.top == last


async def test_publications_end_with_their_ttl_and_the_position_stays(bench: Bench):
    worker = await bench.worker()
    history = HistoryPolicy(10, 80, 600_000)
    position = await worker.publish(history=history)
    async with asyncio.timeout(5):
        while (await worker.broker.read("c", history, limit=-1)).publications:
            await asyncio.sleep(0.02)
    assert (await worker.broker.read("c", history)).top == position
    assert await worker.publish(history=history) == Position(2, position.epoch)


async def test_a_position_that_is_forgotten_begins_a_new_epoch(bench: Bench):
    worker = await bench.worker()
    first = await worker.publish(history=HistoryPolicy(10, 60_000, 60))
    # The position has a life of 60 ms, and nothing but time ends it.
    await asyncio.sleep(0.1)
    second = await worker.publish()
    read = await worker.broker.read("c", KEEP, limit=-1)
    assert second.epoch != first.epoch
    assert second.offset == 1
    assert [publication.offset for publication in read.publications] == [1]


async def test_a_meta_ttl_of_0_keeps_the_position_for_ever(bench: Bench):
    worker = await bench.worker()
    history = HistoryPolicy(10, 60_000, 0)
    first = await worker.publish(history=history)
    assert (await worker.broker.read("c", history)).top == first


async def test_reading_keeps_a_position_alive(bench: Bench):
    worker = await bench.worker()
    history = HistoryPolicy(10, 60_000, 2_000)
    first = await worker.publish(history=history)
    # Longer than the life of a position, with pauses so short that a busy machine may double them.
    for _ in range(6):
        await asyncio.sleep(0.5)
        assert (await worker.broker.read("c", history)).top == first


async def test_after_the_confirmation_nothing_is_missed(bench: Bench):
    speaker, listener = await bench.worker(), await bench.worker()
    for round_ in range(20):
        await listener.subscribe(f"c{round_}")
        await speaker.publish(body(round_), channel=f"c{round_}")
    await listener.recorder.until(lambda: len(listener.recorder.received) == 20)


async def test_a_second_subscribe_is_confirmed_too(bench: Bench):
    worker = await bench.worker()
    await asyncio.gather(*(worker.subscribe() for _ in range(5)))
    await worker.subscribe()
    await worker.publish()
    await worker.recorder.until(lambda: bool(worker.recorder.received))
    assert len(worker.recorder.received) == 1


async def test_an_unsubscribed_channel_receives_nothing_more(bench: Bench):
    worker = await bench.worker()
    await worker.subscribe("a")
    await worker.subscribe("b")
    worker.broker.unsubscribe("a")
    worker.broker.unsubscribe("never subscribed")
    await worker.publish(channel="a")
    await worker.publish(channel="b")
    await worker.recorder.until(lambda: bool(worker.recorder.bodies("b")))
    assert worker.recorder.bodies("a") == []


async def test_unsubscribing_fails_the_subscribes_that_still_wait(bench: Bench):
    worker = await bench.worker()
    waiting = worker.broker.subscribe("c")
    worker.broker.unsubscribe("c")
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(waiting, 5)


async def test_a_channel_may_come_and_go_quickly(bench: Bench):
    worker = await bench.worker()
    for _ in range(10):
        waiting = worker.broker.subscribe("c")
        waiting.add_done_callback(lambda future: future.exception())
        worker.broker.unsubscribe("c")
    await worker.subscribe()
    await worker.publish(body(1))
    await worker.recorder.until(lambda: worker.recorder.bodies() == [body(1)])


async def test_a_broken_subscription_is_resumed_and_reported(bench: Bench):
    worker = await bench.worker()
    await worker.subscribe("a")
    await worker.subscribe("b")
    await bench.break_subscriptions()
    await worker.recorder.until(lambda: {"a", "b"} <= set(worker.recorder.resumptions))
    await worker.publish(body(2), channel="a")
    await worker.recorder.until(lambda: body(2) in worker.recorder.bodies("a"))


@pytest.mark.parametrize("name", ["с-юникод", "a b", "{x}", "a{b}c", "}{", "x" * 255, "a:b", "*?["])
async def test_a_channel_may_have_any_name(bench: Bench, name: str):
    worker = await bench.worker()
    await worker.subscribe(name)
    position = await worker.publish(body(3), channel=name)
    await worker.recorder.until(lambda: worker.recorder.bodies(name) == [body(3)])
    assert (await worker.broker.read(name, KEEP)).top == position


async def test_a_body_may_hold_any_bytes_and_be_large(bench: Bench):
    worker = await bench.worker()
    await worker.subscribe()
    large = b'{"data":"' + b":\r\n\x00\xc3\xa9" * 20_000 + b'"}'
    await worker.publish(large)
    await worker.recorder.until(lambda: worker.recorder.bodies() == [large])
    read = await worker.broker.read("c", KEEP, limit=-1)
    assert read.publications[0].body == large


SIZES = (10, 2_000, 10, 10, 2_000, 4_000, 10, 10, 10, 10, 2_000, 10)


async def filled(bench: Bench) -> Worker:
    """A stream whose publications have the sizes above."""
    worker = await bench.worker()
    for size in SIZES:
        await worker.publish(b"x" * size)
    return worker


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("most", [1, 10, 2_010, 3_999, 4_000, 4_030, 100_000])
async def test_a_read_ends_at_its_bytes_and_goes_on_after_its_last_publication(
    bench: Bench, most: int, reverse: bool
):
    worker = await filled(bench)
    seen: list[int] = []
    since, is_cut = None, True
    while is_cut:
        read = await worker.broker.read(
            "c", KEEP, since=since, limit=-1, reverse=reverse, max_bytes=most
        )
        sizes = [len(publication.body) for publication in read.publications]
        assert sum(sizes) <= most or len(sizes) == 1
        seen += sizes
        since, is_cut = read.publications[-1].offset, read.is_cut
    assert seen == list(reversed(SIZES) if reverse else SIZES)


async def test_a_read_of_all_or_none_gives_none_if_its_limits_do_not_allow_all(bench: Bench):
    worker = await filled(bench)

    async def offsets(since: int, limit: int = 100, max_bytes: int = 100_000) -> list[int]:
        read = await worker.broker.read(
            "c", KEEP, since=since, is_whole=True, limit=limit, max_bytes=max_bytes
        )
        assert read.top.offset == len(SIZES)
        return [publication.offset for publication in read.publications]

    assert await offsets(0) == list(range(1, len(SIZES) + 1))
    assert await offsets(0, limit=len(SIZES) - 1) == []
    assert await offsets(0, limit=len(SIZES)) == list(range(1, len(SIZES) + 1))
    assert await offsets(0, max_bytes=sum(SIZES) - 1) == []
    assert await offsets(0, max_bytes=sum(SIZES)) == list(range(1, len(SIZES) + 1))
    assert await offsets(10, max_bytes=1_999) == [], "not even the first one"
    assert await offsets(12) == []


async def test_a_read_that_leaves_no_epoch_writes_nothing(bench: Bench):
    worker = await bench.worker()
    for question in ({}, {"limit": -1}, {"limit": 5, "since": 3}):
        read = await worker.broker.read("c", KEEP, leaves_epoch=False, **question)  # type: ignore[arg-type]
        assert read == (Position(0, ""), [], False)
    assert await bench.streams() == 0
    position = await worker.publish()
    assert (await worker.broker.read("c", KEEP, leaves_epoch=False)).top == position


async def test_the_position_of_an_unused_stream_is_not_kept_for_long(bench: Bench):
    worker = await bench.worker()
    for history in (KEEP._replace(meta_ttl_ms=10**10), KEEP._replace(meta_ttl_ms=0)):
        read = await worker.broker.read("c", history)
        assert 0 < await bench.life_of_position() <= 3_600_000
        assert (await worker.publish(history=history)).epoch == read.top.epoch
        kept = await bench.life_of_position()
        assert kept > 3_600_000 if history.meta_ttl_ms else kept == float("inf")
        await bench.forget()


async def test_what_was_acknowledged_last_is_known_while_the_channel_is_subscribed(bench: Bench):
    worker, other = await bench.worker(), await bench.worker()
    await worker.publish(body(1))
    assert worker.broker.acknowledged("c") is None
    await worker.subscribe()
    await worker.publish(body(2))
    position = await worker.publish(body(3))
    await other.publish(body(4))
    last = worker.broker.acknowledged("c")
    assert last is not None
    assert last[:2] == (position, hash(body(3)))
    worker.broker.unsubscribe("c")
    assert worker.broker.acknowledged("c") is None
