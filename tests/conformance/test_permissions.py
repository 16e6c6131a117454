"""The official clients without insecure mode: what namespaces allow, and personal channels."""

from __future__ import annotations

import time
from typing import Any

import cent
import jwt
import pytest

from tests.conformance.sdk_clients import Refused, Sdk
from tests.harness.cluster import Cluster
from tests.harness.waiting import until_async

KEY = "k" * 32
CONFIG = {
    "client": {
        "insecure": False,
        "token": {"hmac_secret_key": KEY},
        "subscribe_to_user_personal_channel": {
            "enabled": True,
            "personal_channel_namespace": "personal",
        },
    },
    "channel": {
        "namespaces": [
            {"name": "closed", "history_size": 10, "history_ttl": "60s"},
            {
                "name": "talk",
                "history_size": 10,
                "history_ttl": "60s",
                "allow_subscribe_for_client": True,
                "allow_publish_for_subscriber": True,
                "allow_history_for_subscriber": True,
            },
            {"name": "dialog", "allow_user_limited_channels": True},
            {
                "name": "form",
                "allow_publish_for_client": True,
                "publication_data_format": "json_object",
                "channel_regex": "^[a-z]+$",
            },
            {"name": "personal", "history_size": 10, "history_ttl": "60s", "force_recovery": True},
        ]
    },
    "http_api": {"key": KEY},
    "admin": {"key": KEY},
}


def token(user: str, **claims: Any) -> str:
    """A connection token as an application's backend makes it."""
    claims = {"sub": user, "exp": int(time.time()) + 600, **claims}
    return jwt.encode(claims, KEY, algorithm="HS256")


async def enter(sdk: Sdk, url: str, name: str, user: str, **claims: Any) -> None:
    await sdk.do("connect", name, url=url, options={"token": token(user, **claims)})
    await sdk.events.seen("connected", client=name)


async def api_publish(cluster: Cluster, channel: str, data: Any) -> None:
    client = cent.AsyncClient(f"http://127.0.0.1:{cluster.port}/api", KEY)
    try:
        await client.publish(cent.PublishRequest(channel=channel, data=data))
    finally:
        await client.close()


async def refusal(sdk: Sdk, verb: str, name: str, **facts: Any) -> int:
    with pytest.raises(Refused) as refused:
        await sdk.do(verb, name, **facts)
    return refused.value.code


async def test_a_namespace_that_allows_nothing_refuses_everything_with_103(sdk: Sdk, url: str):
    await enter(sdk, url, "ann", "42")
    await sdk.do("subscribe", "ann", channel="closed:news")
    ended = await sdk.events.seen("unsubscribed", client="ann", channel="closed:news")
    assert ended["code"] == 103
    assert await refusal(sdk, "publish", "ann", channel="closed:news", data=1) == 103
    assert await refusal(sdk, "history", "ann", channel="closed:news", limit=1) == 103


async def test_a_private_channel_without_a_token_is_refused_with_103(sdk: Sdk, url: str):
    await enter(sdk, url, "ann", "42")
    await sdk.do("subscribe", "ann", channel="$talk:news")
    assert (await sdk.events.seen("unsubscribed", channel="$talk:news"))["code"] == 103


async def test_a_subscriber_may_publish_and_read_the_history_and_others_may_not(sdk: Sdk, url: str):
    await enter(sdk, url, "ann", "42")
    await enter(sdk, url, "bob", "43")
    assert await refusal(sdk, "publish", "ann", channel="talk:news", data=1) == 103
    await sdk.do("subscribe", "ann", channel="talk:news")
    await sdk.events.seen("subscribed", client="ann", channel="talk:news")
    await sdk.do("publish", "ann", channel="talk:news", data=1)
    await sdk.events.seen("publication", client="ann", channel="talk:news", data=1)
    assert (await sdk.do("history", "ann", channel="talk:news", limit=9))["offset"] >= 1
    assert await refusal(sdk, "history", "bob", channel="talk:news", limit=9) == 103


async def test_a_channel_of_users_is_for_those_that_it_names(sdk: Sdk, url: str):
    await enter(sdk, url, "ann", "42")
    await enter(sdk, url, "eve", "44")
    for name in ("ann", "eve"):
        await sdk.do("subscribe", name, channel="dialog:a#42,43")
    await sdk.events.seen("subscribed", client="ann", channel="dialog:a#42,43")
    assert (await sdk.events.seen("unsubscribed", client="eve"))["code"] == 103


async def test_a_name_or_data_of_another_form_is_refused_with_107(sdk: Sdk, url: str):
    await enter(sdk, url, "ann", "42")
    assert await refusal(sdk, "publish", "ann", channel="form:NEWS", data={"a": 1}) == 107
    assert await refusal(sdk, "publish", "ann", channel="form:news", data=[1]) == 107
    await sdk.do("publish", "ann", channel="form:news", data={"a": 1})


async def test_a_user_gets_the_publications_of_its_personal_channel(
    sdk: Sdk, url: str, cluster: Cluster
):
    await enter(sdk, url, "ann", "42")
    await sdk.events.seen("server_subscribed", client="ann", channel="personal:#42")
    await api_publish(cluster, "personal:#42", {"for": "42"})
    await sdk.events.seen(
        "server_publication", client="ann", channel="personal:#42", data={"for": "42"}
    )


async def test_refusals_are_counted(sdk: Sdk, url: str, cluster: Cluster):
    await enter(sdk, url, "ann", "42")
    before = (await cluster.metrics()).total("app_permission_refusals_total", operation="publish")
    assert await refusal(sdk, "publish", "ann", channel="closed:news", data=1) == 103

    async def counted() -> bool:
        now = await cluster.metrics()
        return now.total("app_permission_refusals_total", operation="publish") == before + 1

    await until_async(counted, 10.0, "the refusal is counted")
