"""The close code with which balance moves clients, 3011: the official clients are back at once, and miss nothing."""

from __future__ import annotations

import uuid
from typing import Any

import aiohttp

from cluster.errors import FORCE_RECONNECT
from tests.conformance.sdk_clients import Sdk
from tests.harness.cluster import Cluster

API_KEY = "a-key-that-is-long-enough-for-everything"
CONFIG: dict[str, Any] = {"http_api": {"key": API_KEY}}
#: The first delay of each SDK is a second at most; a second attempt would come later than this.
AT_ONCE_SECONDS = 5.0


async def call(cluster: Cluster, method: str, **params: Any) -> None:
    async with (
        aiohttp.ClientSession(headers={"X-API-Key": API_KEY}) as http,
        http.post(f"http://127.0.0.1:{cluster.port}/api/{method}", json=params) as response,
    ):
        assert response.status == 200
        assert "error" not in await response.json()


async def test_a_client_that_is_told_to_reconnect_is_back_at_once_and_lacks_nothing(
    sdk: Sdk, url: str, cluster: Cluster
):
    channel = f"news-{uuid.uuid4()}"
    await sdk.do("connect", "before", url=url)
    session = (await sdk.events.seen("connected", client="before"))["data"]["session"]["id"]
    await sdk.do("connect", "ann", url=url, options={"data": {"session": session}})
    connected = await sdk.events.seen("connected", client="ann")
    assert connected["data"]["session"]["resumed"] is True
    await sdk.do("disconnect", "before")
    await sdk.do("subscribe", "ann", channel=channel)
    await sdk.events.seen("subscribed", client="ann", channel=channel)
    await call(cluster, "publish", channel=channel, data=1)
    await sdk.events.seen("publication", client="ann", offset=1)

    close = {"code": FORCE_RECONNECT.code, "reason": FORCE_RECONNECT.reason}
    await call(cluster, "disconnect", user="", client=connected["id"], disconnect=close)
    await call(cluster, "publish", channel=channel, data=2)

    await sdk.events.seen("connecting", client="ann", code=3011, reason="force reconnect")
    again = await sdk.events.seen("connected", times=2, within=AT_ONCE_SECONDS, client="ann")
    assert again["id"] != connected["id"]
    assert again["data"]["session"]["id"] == session
    assert again["data"]["session"]["resumed"] is True
    await sdk.events.seen("subscribed", times=2, client="ann", channel=channel)
    await call(cluster, "publish", channel=channel, data=3)
    await sdk.events.seen("publication", client="ann", offset=3)
    seen = sdk.events.of("publication", client="ann")
    assert [(one["offset"], one["data"]) for one in seen] == [(1, 1), (2, 2), (3, 3)]
    assert sdk.events.of("disconnected", client="ann") == []
