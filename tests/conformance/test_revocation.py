"""Revoked tokens and blocked users: closed at every worker, and refused at every worker from then on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.conformance.sdk_clients import Sdk, python_sdk
from tests.harness.cluster import Cluster
from tests.unit.test_auth import token

KEY = "k" * 32
API_KEY = "a-key-that-is-long-enough-for-everything"
CONFIG: dict[str, Any] = {
    "client": {"insecure": False, "token": {"hmac_secret_key": KEY}},
    "http_api": {"key": API_KEY},
    "channel": {
        "without_namespace": {
            "allow_publish_for_client": True,
            "allow_publish_for_anonymous": True,
            "allow_subscribe_for_client": True,
        }
    },
}
REVOKED, DENIED = 3500, 3507
#: Enough that nginx gives some to each worker.
CLIENTS = [f"client-{number}" for number in range(6)]


@pytest.fixture
async def python() -> AsyncIterator[Sdk]:
    async with python_sdk() as sdk:
        yield sdk


async def answer_of(cluster: Cluster, method: str, **params: Any) -> Any:
    url = f"http://127.0.0.1:{cluster.port}/api/{method}"
    headers = {"X-API-Key": API_KEY}
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, json=params, headers=headers) as response,
    ):
        assert response.status == 200
        return await response.json()


async def call(cluster: Cluster, method: str, **params: Any) -> None:
    assert await answer_of(cluster, method, **params) == {"result": {}}


async def connect(sdk: Sdk, url: str, name: str, **claims: Any) -> None:
    await sdk.do("connect", name, url=url, options={"token": token(key=KEY, **claims)})


async def connect_all(sdk: Sdk, url: str, **claims: Any) -> None:
    for name in CLIENTS:
        await connect(sdk, url, name, **claims)
    for name in CLIENTS:
        await sdk.events.seen("connected", client=name)


async def closed(sdk: Sdk, name: str) -> int:
    code: int = (await sdk.events.seen("disconnected", client=name))["code"]
    return code


async def test_a_revoked_token_closes_its_connections_and_is_refused(
    python: Sdk, url: str, cluster: Cluster
):
    await connect_all(python, url, sub="ann", jti="stolen")
    await connect(python, url, "other", sub="ann", jti="good")
    await python.events.seen("connected", client="other")
    await call(cluster, "revoke_token", uid="stolen")
    assert {await closed(python, name) for name in CLIENTS} == {REVOKED}
    for number in range(4):
        await connect(python, url, f"again-{number}", sub="ann", jti="stolen")
        assert await closed(python, f"again-{number}") == REVOKED
    await python.do("publish", "other", channel="news", data={"n": 1})


async def test_the_tokens_of_a_user_are_revoked_by_their_issue(
    python: Sdk, url: str, cluster: Cluster
):
    await connect_all(python, url, sub="bob", iat=1_700_000_000)
    await connect(python, url, "later", sub="bob", iat=1_700_000_100)
    await python.events.seen("connected", client="later")
    await call(cluster, "invalidate_user_tokens", user="bob", issued_before=1_700_000_050)
    assert {await closed(python, name) for name in CLIENTS} == {REVOKED}
    await connect(python, url, "older", sub="bob", iat=1_700_000_050)
    assert await closed(python, "older") == REVOKED
    await python.do("publish", "later", channel="news", data={"n": 1})


async def test_a_blocked_user_is_closed_and_refused_until_it_is_unblocked(
    python: Sdk, url: str, cluster: Cluster
):
    await connect_all(python, url, sub="eve")
    await connect(python, url, "other", sub="ann")
    await python.events.seen("connected", client="other")
    await call(cluster, "block_user", user="eve")
    assert {await closed(python, name) for name in CLIENTS} == {DENIED}
    for number in range(4):
        await connect(python, url, f"again-{number}", sub="eve")
        assert await closed(python, f"again-{number}") == DENIED
    await call(cluster, "unblock_user", user="eve")
    await connect(python, url, "back", sub="eve")
    await python.events.seen("connected", client="back")
    await python.do("publish", "other", channel="news", data={"n": 1})


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("revoke_token", {"uid": ""}),
        ("invalidate_user_tokens", {"user": ""}),
        ("block_user", {"user": ""}),
    ],
)
async def test_an_empty_name_is_refused_and_closes_nobody(
    python: Sdk, url: str, cluster: Cluster, method: str, params: dict[str, str]
):
    # Neither has a `jti`, one has no user: an empty name would be all of them.
    await connect(python, url, "ann", sub="ann")
    await connect(python, url, "nobody", sub="")
    for name in ("ann", "nobody"):
        await python.events.seen("connected", client=name)
    assert (await answer_of(cluster, method, **params))["error"]["code"] == 107
    # What comes after it at each worker has been done when this user's connection is closed.
    await connect(python, url, "last", sub="last")
    await python.events.seen("connected", client="last")
    await call(cluster, "disconnect", user="last")
    assert await closed(python, "last") == 3503
    for name in ("ann", "nobody"):
        await python.do("publish", name, channel="news", data={"n": 1})
