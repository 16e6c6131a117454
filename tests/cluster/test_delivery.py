"""Publications reach the subscribers of other workers, with history and without."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.client import Client
from tests.harness.cluster import Cluster
from tests.harness.under_load import assert_no_traceback
from tests.harness.waiting import until, until_async
from tests.harness.wire import open_wire

Json = dict[str, Any]


@contextlib.asynccontextmanager
async def two_workers(
    directory: Path, config: Json | None = None
) -> AsyncIterator[tuple[Cluster, Client, Client]]:
    """A cluster of two workers with one client at each one's own port."""
    async with Cluster(directory / "run", workers=2, config=config, has_nginx=False) as cluster:
        near = await Client(cluster.worker_port(0), name="near").start()
        far = await Client(cluster.worker_port(1), name="far").start()
        yield cluster, near, far
        await near.close()
        await far.close()
    assert_no_traceback(cluster)


async def subscribed(client: Client, channel: str) -> asyncio.Queue[Json]:
    """Subscribe and return the queue of what arrives."""
    queue: asyncio.Queue[Json] = asyncio.Queue()
    answered: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
    client.subscribe(
        channel,
        lambda _, publication: queue.put_nowait(publication),
        lambda _, result: answered.set_result(result),
    )
    await asyncio.wait_for(answered, 5)
    return queue


@pytest.mark.parametrize("channel", ["news", "plain:news"])
async def test_publication_reaches_other_worker(tmp_path: Path, channel: str):
    async with two_workers(tmp_path) as (_, near, far):
        received = await subscribed(far, channel)
        own = await subscribed(near, channel)
        await near.publish(channel, {"text": "hello"})
        for queue in (received, own):
            publication = await asyncio.wait_for(queue.get(), 5)
            assert publication["data"] == {"text": "hello"}
            assert publication["info"]["client"] == near.result["client"]
            assert publication.get("offset", 0) == (0 if channel.startswith("plain") else 1)


async def test_history_is_the_same_at_every_worker(tmp_path: Path):
    async with two_workers(tmp_path) as (_, near, far):
        for number in range(5):
            await near.publish("news", number)
        request = {"channel": "news", "limit": -1}
        here, there = await near.call("history", request), await far.call("history", request)
        assert here == there
        assert [publication["data"] for publication in there["publications"]] == list(range(5))
        assert there["offset"] == 5


async def test_data_is_the_same_bytes_at_every_worker_live_and_read_again(tmp_path: Path):
    # What no encoder of this program would write, and what its decoders would change or refuse.
    texts = [
        b'{"text":"cut \\ud83d"}', b"18446744073709551616", b"1.10", b'{"a": 1,"a": 2}', b"1e999",
        b'"\\u0000\\/"', "\u2028".encode().join([b'"', b'"']), b"[" * 500 + b"]" * 500,
    ]  # fmt: skip
    async with Cluster(tmp_path / "run", workers=2, has_nginx=False) as cluster:
        lines: list[bytes] = []

        def keep(_: int, payload: bytes) -> None:
            lines.extend(payload.split(b"\n"))

        async def line_with(part: bytes) -> bytes:
            await until(lambda: any(part in one for one in lines), 10, f"a document with {part!r}")
            return next(one for one in lines if part in one)

        near = await open_wire(cluster.worker_port(0), on_message=lambda *_: None)
        far = await open_wire(cluster.worker_port(1), on_message=keep)
        far.send_text(b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"news"}}')
        await line_with(b'"id":2')
        near.send_text(b'{"id":1,"connect":{}}')
        for number, text in enumerate(texts, start=2):
            near.send_text(b'{"id":%d,"publish":{"channel":"news","data":%b}}' % (number, text))
        for text in texts:
            assert await line_with(b'"pub":{"data":%b,"info":{' % text)
        far.send_text(b'{"id":3,"history":{"channel":"news","limit":-1}}')
        history = await line_with(b'"id":3')
        assert all(b'{"data":%b,"info":{' % text in history for text in texts)
        near.abort()
        far.abort()
    assert_no_traceback(cluster)


async def resumed_at(cluster: Cluster, slot: int, session: str) -> Json:
    """What one worker answers to a connect with this session."""
    request = {"data": {"session": session}}
    client = await Client(cluster.worker_port(slot), connect_request=request).start()
    answer: Json = client.result["data"]["session"]
    client.wire.abort()
    await client.close()
    return answer


async def test_a_session_is_held_by_two_workers_at_once(tmp_path: Path):
    async with two_workers(tmp_path) as (cluster, near, _):
        session = near.result["data"]["session"]
        assert session["resumed"] is False
        shared = await resumed_at(cluster, 1, session["id"])
        assert (shared["id"], shared["resumed"]) == (session["id"], True)


async def test_a_session_moves_to_the_other_worker_and_keeps_counting(tmp_path: Path):
    config = {"session": {"short_lived": 0}}
    async with two_workers(tmp_path, config) as (cluster, near, _):
        session = near.result["data"]["session"]["id"]
        await near.publish("news", 1)
        await near.close()

        async def has_arrived() -> bool:
            resumed = await resumed_at(cluster, 1, session)
            assert (resumed["id"], resumed["resumed"]) == (session, True)
            return bool(resumed["messages"] >= 1)

        await until_async(has_arrived, 5, "the first connection's publish counts")
