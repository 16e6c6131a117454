"""The published client of the server API, `cent`, through nginx and two workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import cent
import pytest

from tests.harness.client import Client, Subscription
from tests.harness.cluster import Cluster
from tests.harness.waiting import until

KEY = "a-key-that-is-long-enough-for-everything"
CONFIG = {
    "http_api": {"key": KEY},
    # A client that comes back late on a busy machine recovers all of it.
    "client": {"recovery_max_publication_limit": 10_000},
    "channel": {
        "namespaces": [
            {"name": "kept", "history_size": 10_000, "history_ttl": "60s", "force_recovery": True}
        ]
    },
}
PUBLICATIONS = 300


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[cent.AsyncClient]:
    client = cent.AsyncClient(f"http://127.0.0.1:{cluster.port}/api", KEY)
    yield client
    await client.close()


async def listener(cluster: Cluster, name: str, channel: str, got: list[Any]) -> Client:
    client = Client(cluster.port, name=name)

    def publication(_: Subscription, pub: dict[str, Any]) -> None:
        got.append(pub["data"])

    client.subscribe(channel, publication, lambda *_: None)
    await client.start(10)
    await until(lambda: client.is_whole, 10, "it is subscribed")
    return client


async def test_publish_and_broadcast_reach_subscribers_on_every_worker(
    cluster: Cluster, api: cent.AsyncClient
):
    got: list[Any] = []
    clients = [await listener(cluster, f"c{n}", "kept:news", got) for n in range(4)]
    result = await api.publish(cent.PublishRequest(channel="kept:news", data={"text": "hello"}))
    assert (result.offset, bool(result.epoch)) == (1, True)
    request = cent.BroadcastRequest(channels=["kept:news", "kept:other"], data={"text": "all"})
    answers = (await api.broadcast(request)).responses
    assert [each.error for each in answers] == [None, None]
    assert [each.result and each.result.offset for each in answers] == [2, 1]
    await until(lambda: len(got) == 8, 10, "everyone has both")
    for client in clients:
        await client.close()


async def test_a_batch_is_answered_for_each_command(api: cent.AsyncClient):
    # An error among the replies is for tests/unit/test_server_api.py: cent 5.2 cannot read one.
    requests: list[cent.CentRequest[Any]] = [
        cent.PublishRequest(channel="kept:batch", data={"n": 1}),
        cent.BroadcastRequest(channels=["kept:batch"], data={"n": 2}),
        cent.PublishRequest(channel="kept:batch", data={"n": 3}),
    ]
    first, second, third = (await api.batch(cent.BatchRequest(requests=requests))).replies
    assert isinstance(first, cent.PublishResult)
    assert isinstance(second, cent.BroadcastResult)
    assert isinstance(third, cent.PublishResult)
    assert [first.offset, third.offset] == [1, 3]
    assert [each.result and each.result.offset for each in second.responses] == [2]


async def test_errors_are_those_of_the_protocol(cluster: Cluster, api: cent.AsyncClient):
    with pytest.raises(cent.CentApiResponseError) as unknown:
        await api.publish(cent.PublishRequest(channel="nowhere:a", data={}))
    assert (unknown.value.code, unknown.value.message) == (102, "unknown channel")
    stranger = cent.AsyncClient(f"http://127.0.0.1:{cluster.port}/api", "wrong")
    with pytest.raises(cent.CentUnauthorizedError):
        await stranger.publish(cent.PublishRequest(channel="kept:a", data={}))
    await stranger.close()


async def test_no_publish_fails_while_the_workers_are_rolled(
    cluster: Cluster, api: cent.AsyncClient
):
    got: list[Any] = []
    client = await listener(cluster, "roll", "kept:roll", got)
    roll = asyncio.create_task(cluster.roll())
    sent = 0
    while sent < PUBLICATIONS or not roll.done():
        request = cent.PublishRequest(channel="kept:roll", data={"n": sent})
        assert (await api.publish(request)).offset == sent + 1
        sent += 1
        assert sent < 100 * PUBLICATIONS
    await roll
    await until(lambda: len(got) >= sent, 20, f"{sent} publications have arrived")
    assert [each["n"] for each in got] == list(range(sent))
    await client.close()
