"""The official clients refresh their tokens against the real server, and stop where they should."""

from __future__ import annotations

import time
from typing import Any

from tests.conformance.sdk_clients import Sdk
from tests.harness.cluster import Cluster
from tests.harness.waiting import until_async
from tests.unit.test_auth import token

KEY = "k" * 32
CONFIG: dict[str, Any] = {
    "client": {
        "insecure": False,
        "token": {"hmac_secret_key": KEY},
        "ping_interval": "1s",
        "pong_timeout": "500ms",
        # A refresh that comes late is none: the clients must send it in time.
        "expired_close_delay": "1s",
        "expired_sub_close_delay": "1s",
    }
}
TTL = 3


async def refreshes(cluster: Cluster, method: str) -> float:
    return (await cluster.metrics()).total("app_commands_total", method=method)


async def refreshed(cluster: Cluster, method: str, times: float) -> None:
    async def is_refreshed() -> bool:
        return await refreshes(cluster, method) >= times

    await until_async(is_refreshed, 10, "the server has got the refreshes")


async def test_a_connection_is_refreshed_before_its_token_expires(
    sdk: Sdk, url: str, cluster: Cluster
):
    before = await refreshes(cluster, "refresh")
    tokens = {"key": KEY, "user": "ann", "ttl": TTL}
    await sdk.do("connect", "ann", url=url, tokens=tokens)
    await sdk.events.seen("connected", client="ann")
    # The first is for the connect; three more are longer than the first would have lasted.
    await sdk.events.seen("token", times=4, within=40, client="ann")
    await refreshed(cluster, "refresh", before + 2)
    assert len(sdk.events.of("connecting", client="ann")) == 1
    assert sdk.events.of("disconnected", client="ann") == []


async def test_a_subscription_is_refreshed_before_its_token_expires(
    sdk: Sdk, url: str, cluster: Cluster
):
    before = await refreshes(cluster, "sub_refresh")
    lasting = {"key": KEY, "user": "ann", "ttl": 600}
    await sdk.do("connect", "ann", url=url, tokens=lasting)
    await sdk.do("subscribe", "ann", channel="$a", tokens={**lasting, "ttl": TTL})
    await sdk.events.seen("subscribed", client="ann", channel="$a")
    await sdk.events.seen("token", times=4, within=40, client="ann", channel="$a")
    await refreshed(cluster, "sub_refresh", before + 2)
    assert len(sdk.events.of("subscribing", channel="$a")) == 1
    assert sdk.events.of("unsubscribed", channel="$a") == []


async def test_an_expired_token_is_replaced_at_the_connect(sdk: Sdk, url: str):
    expired = token(key=KEY, sub="ann", exp=int(time.time()) - 60)
    tokens = {"key": KEY, "user": "ann", "ttl": 600}
    await sdk.do("connect", "ann", url=url, options={"token": expired}, tokens=tokens)
    await sdk.events.seen("connected", client="ann")
    assert len(sdk.events.of("token", client="ann")) == 1


async def test_a_token_of_another_key_ends_the_client_with_3500(sdk: Sdk, url: str):
    tokens = {"key": "x" * 32, "user": "ann", "ttl": 600}
    await sdk.do("connect", "ann", url=url, tokens=tokens)
    assert (await sdk.events.seen("disconnected", client="ann"))["code"] == 3500


async def test_a_private_channel_without_a_right_token_ends_with_103(sdk: Sdk, url: str):
    lasting = {"key": KEY, "user": "ann", "ttl": 600}
    await sdk.do("connect", "ann", url=url, tokens=lasting)
    await sdk.do("subscribe", "ann", channel="$a")
    await sdk.do("subscribe", "ann", channel="$b", tokens={**lasting, "key": "x" * 32})
    for channel in ("$a", "$b"):
        assert (await sdk.events.seen("unsubscribed", channel=channel))["code"] == 103
    await sdk.do("subscribe", "ann", channel="$c", tokens=lasting)
    await sdk.events.seen("subscribed", channel="$c")


async def test_a_token_for_another_user_s_subscription_ends_the_client_with_3500(
    sdk: Sdk, url: str
):
    lasting = {"key": KEY, "user": "ann", "ttl": 600}
    await sdk.do("connect", "ann", url=url, tokens=lasting)
    await sdk.do("subscribe", "ann", channel="$a", tokens={**lasting, "user": "bob"})
    assert (await sdk.events.seen("disconnected", client="ann"))["code"] == 3500
