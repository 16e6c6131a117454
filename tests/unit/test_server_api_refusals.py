"""What the server API refuses, what a key may do, and the table of its methods."""

from __future__ import annotations

import dataclasses
from typing import Any

import aiohttp
import pytest

from cluster.api.method_table import API_TABLE
from cluster.config import ApiKeyConfig, HttpApiConfig
from cluster.methods import API_METHODS
from tests.unit.api_workers import (
    KEYS,
    OWNER,
    PUBLISHER,
    READER,
    SECRET,
    api_config,
    code_of,
    two_workers,
)
from tests.unit.local_worker import (
    LocalWorker,
    ask,
    changed,
)
from tests.unit.test_server_api import KEY, Answer, post

# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("disconnect", {}, 107),
        ("disconnect", {"user": 1}, 107),
        ("disconnect", {"user": "a", "whitelist": "b"}, 107),
        ("disconnect", {"user": "a", "whitelist": ["b"] * 1001}, 107),
        ("disconnect", {"user": "a", "disconnect": {"code": 2000}}, 107),
        ("disconnect", {"user": "a", "disconnect": {"code": 5000}}, 107),
        ("disconnect", {"user": "a", "disconnect": {"reason": "7"}}, 107),
        ("disconnect", {"user": "a", "disconnect": {"reason": "x" * 124}}, 107),
        ("disconnect", {"user": "a" * 70_000}, 107),
        ("unsubscribe", {"user": "a"}, 107),
        ("unsubscribe", {"user": "a", "channel": ""}, 107),
        ("unsubscribe", {"user": "a", "channel": "nowhere:a"}, 102),
        ("subscribe", {"channel": "news"}, 107),
        ("subscribe", {"user": "a", "channel": "nowhere:a"}, 102),
        ("subscribe", {"user": "a", "channel": "news", "expire_at": 1}, 107),
        ("subscribe", {"user": "a", "channel": "news", "b64info": "MQ"}, 107),
        ("subscribe", {"user": "a", "channel": "news", "override": {"presence": True}}, 107),
        ("subscribe", {"user": "a", "channel": "news", "recover_since": {"offset": -1}}, 107),
        ("refresh", {}, 107),
        ("refresh", {"user": "a", "expire_at": "soon"}, 107),
        ("refresh", {"user": "a", "expire_at": True}, 107),
        ("history", {"channel": "kept:a", "limit": -2}, 107),
        ("history", {"channel": "kept:a", "limit": 2**53}, 107),
        ("history", {"channel": "kept:a", "since": {}, "reverse": True}, 107),
        ("history", {"channel": "nowhere:a"}, 102),
        ("history_remove", {}, 107),
        ("presence", {"channel": "news"}, 108),
        ("presence_stats", {"channel": "nowhere:a"}, 102),
        ("channels", {"pattern": "x" * 256}, 107),
        ("channels", {"pattern": []}, 107),
        ("connections", {}, 107),
        ("connections", {"user": "", "limit": 0}, 107),
        ("rpc", {}, 107),
        ("rpc", {"method": ""}, 107),
        ("rpc", {"method": "a"}, 104),
        ("revoke_token", {"uid": "a"}, 108),
        ("revoke_token", {"uid": ""}, 107),
        ("block_user", {"user": "a"}, 108),
        ("block_user", {"user": ""}, 107),
        ("unblock_user", {"user": ""}, 107),
        ("invalidate_user_tokens", {"user": ""}, 107),
        ("unblock_user", {"user": "a"}, 108),
        ("invalidate_user_tokens", {"user": "a"}, 108),
        ("connections", {"user": "a", "expression": "true"}, 108),
    ],
)
async def test_a_wrong_request_of_any_method_is_refused(
    method: str, params: dict[str, Any], code: int
):
    async with two_workers() as (one, _):
        assert await code_of(one, method, **params) == code


@pytest.mark.parametrize("method", ["disconnect", "info"])
async def test_without_the_store_a_method_of_all_workers_is_error_100(method: str):
    async with two_workers() as (one, _):
        one.store.control.is_up = False
        assert await code_of(one, method, user="a") == 100
        assert one.counters.errors["store"] == 1


# --- keys ----------------------------------------------------------------------------------------


async def with_key(one: LocalWorker, key: str, method: str, /, **params: Any) -> Answer:
    return await post(one, method, params, {"X-API-Key": key})


@pytest.mark.parametrize(
    ("key", "method", "params", "status"),
    [
        (KEY, "publish", {"channel": "other:a", "data": 1}, 200),
        (READER, "history", {"channel": "kept:a"}, 200),
        (READER, "info", {}, 200),
        (READER, "publish", {"channel": "kept:a", "data": 1}, 403),
        (READER, "batch", {"commands": [{"history": {"channel": "kept:a"}}]}, 200),
        (READER, "batch", {"commands": [{"info": {}}, {"publish": {"channel": "kept:a"}}]}, 403),
        (PUBLISHER, "publish", {"channel": "kept:a", "data": 1}, 200),
        (PUBLISHER, "publish", {"channel": "$kept:a", "data": 1}, 200),
        (PUBLISHER, "publish", {"channel": "news", "data": 1}, 403),
        (PUBLISHER, "publish", {"channel": "nowhere:a", "data": 1}, 403),
        (PUBLISHER, "broadcast", {"channels": ["kept:a", "other:a"], "data": 1}, 403),
        (PUBLISHER, "disconnect", {"user": ""}, 403),
        (OWNER, "publish", {"channel": "news", "data": 1}, 200),
        (OWNER, "publish", {"channel": "other:a", "data": 1}, 403),
        (OWNER, "disconnect", {"user": ""}, 403),
        (OWNER, "info", {}, 403),
        (OWNER, "nothing", {}, 200),
        (SECRET, "publish", {"channel": "kept:a", "data": 1}, 401),
        ("", "info", {}, 401),
    ],
)
async def test_a_key_may_do_what_its_lists_say(
    key: str, method: str, params: dict[str, Any], status: int
):
    async with two_workers(api_config(KEYS)) as (one, _):
        answer = await with_key(one, key, method, **params)
        assert answer.status == status
        counted = one.counters.api_requests
        assert counted["forbidden"] == (status == 403)
        assert counted["unauthorized"] == (status == 401)
        if status in {401, 403}:
            assert one.counters.publications == 0


@pytest.mark.parametrize(
    ("key", "channel", "status"),
    [
        (PUBLISHER, "kept/a", 200),
        (PUBLISHER, "!kept/a", 200),
        (PUBLISHER, "other/a", 403),
        (PUBLISHER, "kept:a", 403),
        (PUBLISHER, "$kept/a", 403),
        (OWNER, "other/a", 403),
        (OWNER, "!other/a", 403),
        (OWNER, "other:a", 200),
    ],
)
async def test_the_namespaces_of_a_key_are_those_of_the_configured_boundaries(
    key: str, channel: str, status: int
):
    config = api_config(KEYS)
    names = dataclasses.replace(config.channel, namespace_boundary="/", private_prefix="!")
    async with two_workers(changed(config, channel=names)) as (one, _):
        answer = await with_key(one, key, "publish", channel=channel, data=1)
        assert answer.status == status


async def test_a_limited_key_lists_the_channels_of_its_namespaces_at_the_configured_boundaries():
    reader = ApiKeyConfig("lister", "l" * 32, ("channels",), ("kept",))
    config = api_config((reader,))
    names = dataclasses.replace(config.channel, namespace_boundary="/", private_prefix="!")
    async with two_workers(changed(config, channel=names)) as (one, two):
        for worker, channel in ((one, "kept/a"), (two, "other/a"), (two, "kept:a")):
            caller = await worker.caller()
            await caller.connect()
            await ask(caller, "subscribe", channel=channel)
        answer = await with_key(one, reader.key, "channels")
        assert set(answer.json["result"]["channels"]) == {"kept/a"}


@pytest.mark.parametrize(
    ("method", "params", "code", "status"),
    [
        ("publish", {"channel": "kept:a", "data": 1}, 100, 500),
        ("publish", {"channel": "nowhere:a", "data": 1}, 102, 404),
        ("rpc", {"method": "a"}, 104, 404),
        ("history", {"channel": "kept:a", "limit": -2}, 107, 400),
        ("presence", {"channel": "news"}, 108, 400),
        ("history", {"channel": "kept:a", "limit": 1, "since": {"epoch": "other"}}, 112, 416),
    ],
)
@pytest.mark.parametrize("mode", ["", "transport"])
async def test_errors_have_statuses_if_the_request_or_the_configuration_says_so(
    mode: str, method: str, params: dict[str, Any], code: int, status: int
):
    asked = {} if mode else {"X-Centrifugo-Error-Mode": "transport"}
    async with two_workers(api_config(mode=mode)) as (one, _):
        if code == 100:
            one.store.is_up = False
        answer = await post(one, method, params, {"X-API-Key": KEY, **asked})
        assert (answer.status, answer.json["code"]) == (status, code)
        assert set(answer.json) == {"code", "message"}
        if not mode:
            answer = await post(one, method, params)
            assert (answer.status, answer.json["error"]["code"]) == (200, code)


async def test_without_any_key_but_a_limited_one_the_api_is_on():
    config = changed(api_config(), http_api=HttpApiConfig("", KEYS))
    async with two_workers(config) as (one, _):
        assert (await with_key(one, READER, "info")).status == 200
        assert (await with_key(one, "", "info")).status == 401


# --- the table -----------------------------------------------------------------------------------


async def test_the_table_has_every_method_and_every_method_is_in_it():
    assert tuple(API_TABLE) == API_METHODS
    async with two_workers() as (one, _):
        for method in API_METHODS:
            answer = await post(one, method, {"commands": []} if method == "batch" else {})
            code = (answer.json.get("error") or {}).get("code")
            assert code != 104, method


async def test_the_openapi_document_describes_every_method():
    async with two_workers() as (one, _), aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{one.port}/api/openapi.json"
        async with http.get(url) as response:
            assert response.status == 401
        async with http.get(url, headers={"X-API-Key": KEY}) as response:
            document = await response.json()
        assert document["openapi"].startswith("3.1")
        assert set(document["paths"]) == {f"/api/{name}" for name in API_METHODS}
        for name, path in document["paths"].items():
            schema = path["post"]["requestBody"]["content"]["application/json"]["schema"]
            known = {param.name for param in API_TABLE[name.removeprefix("/api/")].params}
            assert set(schema["properties"]) == known
