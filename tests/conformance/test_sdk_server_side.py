"""The official clients' server-side subscriptions: of their token and of the server API, with recovery."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import cent
import pytest

from tests.conformance.sdk_clients import Sdk
from tests.harness.cluster import Cluster
from tests.harness.proxy import FaultProxy
from tests.unit.test_auth import token

KEY = "k" * 32
API_KEY = "a-key-that-is-long-enough-for-everything"
CONFIG: dict[str, Any] = {
    "client": {"insecure": False, "token": {"hmac_secret_key": KEY}},
    "http_api": {"key": API_KEY},
    "channel": {
        "without_namespace": {"history_size": 10, "history_ttl": "60s", "force_recovery": True},
        "namespaces": [{"name": "plain"}],
    },
}


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[cent.AsyncClient]:
    client = cent.AsyncClient(f"http://127.0.0.1:{cluster.port}/api", API_KEY)
    yield client
    await client.close()


@pytest.fixture
def channel() -> str:
    """A channel that no test has used."""
    return f"news-{uuid.uuid4()}"


async def publish(api: cent.AsyncClient, channel: str, *values: Any) -> None:
    for value in values:
        await api.publish(cent.PublishRequest(channel=channel, data=value))


def received(sdk: Sdk, channel: str) -> list[Any]:
    return [one["data"] for one in sdk.events.of("server_publication", channel=channel)]


async def connect_through(sdk: Sdk, proxy: FaultProxy, channel: str) -> None:
    """Connect a client with a token that has the channel."""
    url = f"ws://127.0.0.1:{proxy.port}/connection/websocket"
    options = {"token": token(key=KEY, sub="ann", channels=[channel])}
    await sdk.do("connect", "ann", url=url, options=options)
    await sdk.events.seen("server_subscribed", client="ann", channel=channel)


async def test_the_channels_of_a_token_are_recovered_after_a_cut(
    sdk: Sdk, url: str, cluster: Cluster, api: cent.AsyncClient, channel: str
):
    async with FaultProxy(cluster.port) as proxy:
        await connect_through(sdk, proxy, channel)
        await publish(api, channel, 1)
        await sdk.events.seen("server_publication", channel=channel, data=1)
        await proxy.cut()
        await sdk.events.seen("connecting", times=2, client="ann")
        await publish(api, channel, 2, 3)
        await proxy.heal()
        again = await sdk.events.seen("server_subscribed", times=2, channel=channel)
        assert (again["wasRecovering"], again["recovered"]) == (True, True)
        await publish(api, channel, 4)
        await sdk.events.seen("server_publication", channel=channel, data=4)
    assert received(sdk, channel) == [1, 2, 3, 4]


async def test_a_gap_longer_than_the_history_is_reported_for_the_channels_of_a_token(
    sdk: Sdk, url: str, cluster: Cluster, api: cent.AsyncClient, channel: str
):
    async with FaultProxy(cluster.port) as proxy:
        await connect_through(sdk, proxy, channel)
        await proxy.cut()
        await publish(api, channel, *range(15))
        await proxy.heal()
        again = await sdk.events.seen("server_subscribed", times=2, channel=channel)
        assert (again["wasRecovering"], again["recovered"]) == (True, False)
    assert received(sdk, channel) == []


@pytest.mark.parametrize("space", ["", "plain:"])
async def test_the_server_subscribes_and_unsubscribes_a_client_that_is_connected(
    sdk: Sdk, url: str, api: cent.AsyncClient, channel: str, space: str
):
    channel, user = space + channel, str(uuid.uuid4())
    await sdk.do("connect", "ann", url=url, options={"token": token(key=KEY, sub=user)})
    await sdk.events.seen("connected", client="ann")
    await api.subscribe(cent.SubscribeRequest(user=user, channel=channel))
    await sdk.events.seen("server_subscribed", client="ann", channel=channel)
    await publish(api, channel, 1)
    await sdk.events.seen("server_publication", channel=channel, data=1)
    await api.unsubscribe(cent.UnsubscribeRequest(user=user, channel=channel))
    await sdk.events.seen("server_unsubscribed", client="ann", channel=channel)
    await publish(api, channel, 2)
    await api.subscribe(cent.SubscribeRequest(user=user, channel=channel))
    await sdk.events.seen("server_subscribed", times=2, client="ann", channel=channel)
    await publish(api, channel, 3)
    await sdk.events.seen("server_publication", channel=channel, data=3)
    assert received(sdk, channel) == [1, 3]
