"""The published client of the server API, `cent`, through nginx and two workers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import cent
import pytest

from tests.harness.client import Client, Subscription
from tests.harness.cluster import Cluster
from tests.harness.waiting import until, until_async

KEY = "a-key-that-is-long-enough-for-everything"
READER = "another-key-that-may-read-the-history-only"
CONFIG = {
    "http_api": {
        "key": KEY,
        "keys": [{"name": "reader", "key": READER, "methods": ["history"], "namespaces": ["kept"]}],
    },
    # A client that comes back late on a busy machine recovers all of it.
    "client": {"recovery_max_publication_limit": 10_000},
    "channel": {
        "namespaces": [
            {"name": "kept", "history_size": 10_000, "history_ttl": "60s", "force_recovery": True},
            {"name": "here", "presence": True},
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


async def test_a_repeated_publish_is_published_once_whichever_worker_gets_it(
    cluster: Cluster, api: cent.AsyncClient
):
    got: list[Any] = []
    client = await listener(cluster, "once", "kept:once", got)
    request = cent.PublishRequest(channel="kept:once", data={"n": 1}, idempotency_key="order-17")
    results = await asyncio.gather(*(api.publish(request) for _ in range(20)))
    assert {(each.offset, each.epoch) for each in results} == {(1, results[0].epoch)}
    broadcast = cent.BroadcastRequest(
        channels=["kept:once", "kept:twice"], data={"n": 2}, idempotency_key="order-17"
    )
    responses = (await api.broadcast(broadcast)).responses
    assert [each.result and each.result.offset for each in responses] == [1, 1]
    await api.publish(cent.PublishRequest(channel="kept:once", data={"n": 3}))
    await until(lambda: {"n": 3} in got, 10, "the last one has arrived")
    assert [each["n"] for each in got] == [1, 3]
    await client.close()


async def test_a_publication_that_skips_history_is_delivered_and_not_kept(
    cluster: Cluster, api: cent.AsyncClient
):
    got: list[Any] = []
    client = await listener(cluster, "skip", "kept:skip", got)
    request = cent.PublishRequest(channel="kept:skip", data={"n": 1}, skip_history=True)
    assert not (await api.publish(request)).offset
    kept = await api.publish(cent.PublishRequest(channel="kept:skip", data={"n": 2}))
    assert kept.offset == 1
    await until(lambda: len(got) == 2, 10, "both have arrived")
    await client.close()


class VersionedPublish(cent.PublishRequest):
    """cent 5.2 does not have the fields of Centrifugo 6 yet."""

    version: int
    version_epoch: str = ""


async def test_an_old_version_is_dropped(cluster: Cluster, api: cent.AsyncClient):
    got: list[Any] = []
    client = await listener(cluster, "version", "kept:version", got)

    async def publish(version: int, epoch: str = "") -> int | None:
        request = VersionedPublish(
            channel="kept:version", data={"v": version}, version=version, version_epoch=epoch
        )
        return (await api.publish(request)).offset

    assert [await publish(version) for version in (2, 1, 2, 3)] == [1, 1, 1, 2]
    assert await publish(1, "restarted") == 3
    await until(lambda: len(got) == 3, 10, "they have arrived")
    assert [each["v"] for each in got] == [2, 3, 1]
    await client.close()


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


async def connections_of(cluster: Cluster, count: int) -> list[Client]:
    clients = [Client(cluster.port, name=f"u{number}") for number in range(count)]
    for client in clients:
        await client.start(10)
    return clients


async def test_a_disconnect_reaches_connections_of_every_worker(
    cluster: Cluster, api: cent.AsyncClient
):
    clients = await connections_of(cluster, 6)
    await api.disconnect(
        cent.DisconnectRequest(user="", disconnect=cent.Disconnect(code=4501, reason="go away"))
    )
    for client in clients:
        await until(lambda client=client: client.is_terminated, 20, "it is closed")  # type: ignore[misc]
        assert client.history.ends[-1][1] == 4501
        await client.close()


async def test_a_disconnect_may_be_for_one_connection(cluster: Cluster, api: cent.AsyncClient):
    clients = await connections_of(cluster, 4)
    gone, *others = clients
    await api.disconnect(cent.DisconnectRequest(user="", client=gone.result["client"]))
    await until(lambda: gone.is_terminated, 20, "it is closed")
    assert gone.history.ends[-1][1] == 3503
    for client in others:
        await client.publish("kept:after", {"n": 1})
    for client in clients:
        await client.close()


async def test_subscribe_and_unsubscribe_reach_every_worker(
    cluster: Cluster, api: cent.AsyncClient
):
    clients = await connections_of(cluster, 4)
    channel = "kept:given"
    await api.subscribe(cent.SubscribeRequest(user="", channel=channel, data={"n": 1}))

    async def count() -> int:
        found = (await api.channels(cent.ChannelsRequest(pattern="kept:g*"))).channels
        return found[channel].num_clients if channel in found else 0

    await until_async(lambda: is_count(count, 4), 20, "all are subscribed")
    await api.unsubscribe(cent.UnsubscribeRequest(user="", channel=channel))
    await until_async(lambda: is_count(count, 0), 20, "none is subscribed")
    for client in clients:
        await client.close()


async def is_count(count: Callable[[], Awaitable[int]], wanted: int) -> bool:
    return await count() == wanted


async def test_a_refresh_that_says_expired_closes(cluster: Cluster, api: cent.AsyncClient):
    [client] = await connections_of(cluster, 1)
    name = client.result["client"]
    later = int(time.time()) + 1000
    await api.refresh(cent.RefreshRequest(user="", client=name, expire_at=later))
    await api.refresh(cent.RefreshRequest(user="", client=name, expired=True))
    await until(lambda: bool(client.history.ends), 20, "it is closed")
    assert client.history.ends[0][1] == 3005
    await client.close()


async def test_history_is_read_and_removed(api: cent.AsyncClient):
    for number in range(1, 4):
        await api.publish(cent.PublishRequest(channel="kept:read", data={"n": number}))
    found = await api.history(cent.HistoryRequest(channel="kept:read", limit=-1))
    assert [each.data["n"] for each in found.publications] == [1, 2, 3]
    since = cent.StreamPosition(offset=3, epoch=found.epoch)
    back = await api.history(
        cent.HistoryRequest(channel="kept:read", limit=1, since=since, reverse=True)
    )
    assert [each.offset for each in back.publications] == [2]
    await api.history_remove(cent.HistoryRemoveRequest(channel="kept:read"))
    found = await api.history(cent.HistoryRequest(channel="kept:read", limit=-1))
    assert (found.publications, found.offset) == ([], 3)


async def test_info_and_connections_are_of_all_workers(cluster: Cluster, api: cent.AsyncClient):
    clients = await connections_of(cluster, 6)
    nodes = (await api.info(cent.InfoRequest())).nodes
    assert len(nodes) == 2
    assert sum(each.num_clients for each in nodes) >= 6
    found = (await api.connections(cent.ConnectionsRequest(user="", expression=""))).connections
    assert {client.result["client"] for client in clients} <= set(found)
    for client in clients:
        await client.close()


async def test_the_older_format_is_answered_behind_nginx_too(cluster: Cluster):
    body = b"\n".join(
        b'{"id":%d,"method":"publish","params":{"channel":"kept:older","data":{"n":%d}}}' % (n, n)
        for n in (1, 2)
    )
    url, headers = f"http://127.0.0.1:{cluster.port}/api", {"Authorization": f"apikey {KEY}"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, data=body, headers=headers) as response,
    ):
        assert response.status == 200
        replies = [json.loads(line) for line in (await response.text()).split("\n")]
    assert [(one["id"], one["result"]["offset"]) for one in replies] == [(1, 1), (2, 2)]


async def test_presence_is_that_of_all_workers(cluster: Cluster, api: cent.AsyncClient):
    empty = await api.presence(cent.PresenceRequest(channel="here:room"))
    assert empty.presence == {}
    clients = [await listener(cluster, f"p{n}", "here:room", []) for n in range(4)]
    ids = {client.result["client"] for client in clients}
    found = (await api.presence(cent.PresenceRequest(channel="here:room"))).presence
    assert set(found) == ids
    assert {(name, each.client, each.user) for name, each in found.items()} == {
        (name, name, "") for name in ids
    }
    stats = await api.presence_stats(cent.PresenceStatsRequest(channel="here:room"))
    assert (stats.num_clients, stats.num_users) == (4, 1)
    for client in clients:
        await client.close()

    async def nobody_is_left() -> bool:
        stats = await api.presence_stats(cent.PresenceStatsRequest(channel="here:room"))
        return (stats.num_clients, stats.num_users) == (0, 0)

    await until_async(nobody_is_left, 20, "nobody is left")


async def test_what_is_not_here_says_so(api: cent.AsyncClient):
    calls: list[Awaitable[Any]] = [
        api.presence(cent.PresenceRequest(channel="kept:a")),
        api.presence_stats(cent.PresenceStatsRequest(channel="kept:a")),
    ]
    for call in calls:
        with pytest.raises(cent.CentApiResponseError) as refused:
            await call
        assert refused.value.code == 108


async def test_a_limited_key_gets_403(cluster: Cluster):
    reader = cent.AsyncClient(f"http://127.0.0.1:{cluster.port}/api", READER)
    await reader.history(cent.HistoryRequest(channel="kept:read"))
    with pytest.raises(cent.CentTransportError) as refused:
        await reader.publish(cent.PublishRequest(channel="kept:read", data={}))
    assert refused.value.status_code == 403
    await reader.close()
