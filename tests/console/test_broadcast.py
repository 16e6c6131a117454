"""One collection for all viewers, which runs only while there are any."""

from __future__ import annotations

import asyncio

import pytest

from cluster.console.broadcast import Broadcast, Publish, TooManyViewers


class Source:
    """A collection that a test drives."""

    def __init__(self) -> None:
        self.running = 0
        self.starts = 0
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def collect(self, publish: Publish) -> None:
        self.publish = publish
        self.running += 1
        self.starts += 1
        self.started.set()
        try:
            await asyncio.shield(self.failure)
        finally:
            self.running -= 1
            self.ended.set()


@pytest.fixture
async def source() -> Source:
    return Source()


@pytest.fixture
async def broadcast(source: Source) -> Broadcast:
    return Broadcast(source.collect, most_viewers=2)


async def test_nothing_is_collected_without_a_viewer(broadcast: Broadcast, source: Source):
    assert source.starts == 0
    with broadcast.watching():
        await source.started.wait()
        assert broadcast.is_collecting
    await source.ended.wait()
    assert source.running == 0


async def test_viewers_share_one_collection(broadcast: Broadcast, source: Source):
    with broadcast.watching() as first, broadcast.watching() as second:
        await source.started.wait()
        source.publish("numbers", b"1")
        assert [await anext(first), await anext(second)] == [b"1", b"1"]
        assert source.starts == 1


async def test_the_collection_goes_on_while_one_viewer_is_left(
    broadcast: Broadcast, source: Source
):
    with broadcast.watching() as first:
        with broadcast.watching():
            await source.started.wait()
        source.publish("numbers", b"1")
        assert await anext(first) == b"1"


async def test_a_slow_viewer_gets_the_newest_frame_only(broadcast: Broadcast, source: Source):
    with broadcast.watching() as frames:
        await source.started.wait()
        for number in range(1000):
            source.publish("numbers", b"%d" % number)
        source.publish("alerts", b"a")
        assert {await anext(frames), await anext(frames)} == {b"999", b"a"}


async def test_an_equal_frame_is_not_sent_again(broadcast: Broadcast, source: Source):
    with broadcast.watching() as frames:
        await source.started.wait()
        source.publish("alerts", b"a")
        assert await anext(frames) == b"a"
        source.publish("alerts", b"a")
        source.publish("alerts", b"b")
        assert await anext(frames) == b"b"


async def test_a_viewer_that_comes_as_the_last_one_leaves_is_served(
    broadcast: Broadcast, source: Source
):
    with broadcast.watching():
        await source.started.wait()
    source.started.clear()
    with broadcast.watching() as frames:
        await source.started.wait()
        source.publish("numbers", b"1")
        assert await anext(frames) == b"1"
        assert source.starts == 2


async def test_viewers_are_limited(broadcast: Broadcast, source: Source):
    with broadcast.watching(), broadcast.watching(), pytest.raises(TooManyViewers):
        broadcast.watching().__enter__()
    with broadcast.watching():
        """The viewer that left makes room."""


async def test_a_collection_that_fails_ends_the_streams_and_starts_again(
    broadcast: Broadcast, source: Source
):
    with broadcast.watching() as frames:
        await source.started.wait()
        source.failure.set_exception(OSError("no disk"))
        assert [frame async for frame in frames] == []
        source.failure = asyncio.get_running_loop().create_future()
        source.started.clear()
        with broadcast.watching():
            await source.started.wait()
            assert source.starts == 2


async def test_closing_ends_the_streams(broadcast: Broadcast, source: Source):
    with broadcast.watching() as frames:
        await source.started.wait()
        waiting = asyncio.ensure_future(anext(frames, None))
        await asyncio.sleep(0)
        broadcast.close()
        assert await waiting is None
    await source.ended.wait()
