"""`POST /api` with the method in the body: the older format of the server API, which clients still use."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from tests.unit.api_workers import KEYS, READER, api_config, two_workers
from tests.unit.local_worker import LocalWorker
from tests.unit.test_server_api import KEY, Answer


async def send(one: LocalWorker, body: bytes, key: str = KEY) -> Answer:
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            f"http://127.0.0.1:{one.port}/api", data=body, headers={"X-API-Key": key}
        ) as response,
    ):
        return Answer(response.status, await response.read(), None)


def documents(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200, answer.body
    return [json.loads(line) for line in answer.body.split(b"\n")]


async def test_a_command_in_the_body_is_answered_with_its_result():
    async with two_workers() as (one, _):
        body = b'{\n "method": "publish",\n "params": {"channel": "kept:a", "data": {"n": 1}}\n}'
        [reply] = documents(await send(one, body))
        assert set(reply) == {"result"}
        assert (reply["result"]["offset"], bool(reply["result"]["epoch"])) == (1, True)
        assert one.counters.api_requests["ok"] == 1


async def test_commands_on_lines_are_answered_on_lines_in_their_order_with_their_ids():
    commands = [
        {"id": 7, "method": "publish", "params": {"channel": "kept:a", "data": 1}},
        {"id": 8, "method": "PUBLISH", "params": {"channel": "nowhere:a", "data": 1}},
        {"method": "publish", "params": {"channel": "kept:a", "data": 2}},
        {"method": "history", "params": {"channel": "kept:a", "limit": -1}},
        {"method": "nothing", "params": {}},
        {"method": "batch", "params": {"commands": []}},
        {"method": "info"},
        {"method": "channels", "params": None},
    ]
    async with two_workers() as (one, _):
        body = b"\n".join(json.dumps(command).encode() for command in commands) + b"\n"
        replies = documents(await send(one, body))
        first, second, third, history, nothing, batch, info, channels = replies
        assert (first["id"], first["result"]["offset"]) == (7, 1)
        assert second == {"id": 8, "error": {"code": 102, "message": "unknown channel"}}
        assert third["result"]["offset"] == 2
        assert "id" not in third
        assert [each["data"] for each in history["result"]["publications"]] == [1, 2]
        assert (nothing["error"]["code"], batch["error"]["code"]) == (104, 104)
        assert len(info["result"]["nodes"]) == 2
        assert channels == {"result": {"channels": {}}}


async def test_what_a_command_publishes_stays_the_text_that_it_was():
    async with two_workers() as (one, _):
        published = (
            b'{"method":"publish","params":{"channel":"kept:a","data":{"n":1.50,"n":1E400}}}'
        )
        await send(one, published)
        answer = await send(one, b'{"method":"history","params":{"channel":"kept:a","limit":1}}')
        assert b'"data":{"n":1.50,"n":1E400}' in answer.body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"{",
        b"[]",
        b"1",
        b'{"method":1}',
        b'{"method":"info"}\n{',
        b'{"method":"info","params":[]}',
        b'{"id":-1,"method":"info"}',
    ],
)
async def test_a_body_without_commands_is_400_and_nothing_is_done(body: bytes):
    async with two_workers() as (one, _):
        publish = b'{"method":"publish","params":{"channel":"kept:a","data":1}}\n'
        assert (await send(one, body)).status == 400
        if body.strip():
            assert (await send(one, publish + body)).status == 400
        assert one.counters.publications == 0
        assert one.counters.api_errors["107"] >= 1


async def test_a_key_must_be_allowed_every_command_or_none_is_done():
    allowed = b'{"method":"history","params":{"channel":"kept:a"}}\n'
    forbidden = b'{"method":"publish","params":{"channel":"kept:a","data":1}}'
    async with two_workers(api_config(KEYS)) as (one, _):
        assert (await send(one, allowed, READER)).status == 200
        assert (await send(one, allowed + forbidden, READER)).status == 403
        assert (await send(one, forbidden, "wrong")).status == 401
        assert one.counters.publications == 0
        assert one.counters.api_requests == {
            "ok": 1, "error": 0, "unauthorized": 1, "forbidden": 1,
        }  # fmt: skip


async def test_a_worker_that_drains_does_no_command():
    async with two_workers() as (one, _):
        one.is_ready = False
        body = b'{"method":"publish","params":{"channel":"kept:a","data":1}}'
        assert (await send(one, body)).status == 503
        assert one.counters.publications == 0
