"""The server HTTP API of one worker: what a backend publishes, and how it is refused."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from cluster.config import ChannelConfig, HttpApiConfig, Namespace
from tests.unit.local_worker import (
    RECOVERABLE,
    Caller,
    LocalWorker,
    ask,
    changed,
    configured,
    entered,
)

KEY = "k" * 32


def worker(key: str = KEY) -> LocalWorker:
    spaces = ChannelConfig(namespaces=(Namespace("kept", RECOVERABLE),))
    return LocalWorker(changed(configured(), channel=spaces, http_api=HttpApiConfig(key)))


class Answer:
    def __init__(self, status: int, body: bytes, json: Any) -> None:
        self.status, self.body, self.json = status, body, json


async def post(
    one: LocalWorker, method: str, body: Any, headers: dict[str, str] | None = None
) -> Answer:
    data = body if isinstance(body, bytes) else None
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"http://127.0.0.1:{one.port}/api/{method}",
            data=data,
            json=None if data is not None else body,
            headers={"X-API-Key": KEY} if headers is None else headers,
        ) as response,
    ):
        content = await response.read()
        is_json = response.content_type == "application/json"
        return Answer(response.status, content, await response.json() if is_json else None)


async def pushed(client: Caller) -> dict[str, Any]:
    """The first publication pushed to a client."""
    pushes = await client.until(lambda: [one["push"] for one in client.heard if "push" in one])
    publication: dict[str, Any] = pushes[0]["pub"]
    return publication


async def test_a_backend_publishes_to_subscribers():
    async with worker().open() as one:
        client = await entered(one)
        await ask(client, "subscribe", channel="news")
        answer = await post(one, "publish", {"channel": "news", "data": {"text": "hello"}})
        assert (answer.status, answer.json) == (200, {"result": {}})
        assert await pushed(client) == {"data": {"text": "hello"}}


async def test_a_publication_in_a_channel_with_history_has_its_position_in_the_result():
    async with worker().open() as one:
        first = await post(one, "publish", {"channel": "kept:a", "data": 1})
        second = await post(one, "publish", {"channel": "kept:a", "data": 2})
        assert [first.json["result"]["offset"], second.json["result"]["offset"]] == [1, 2]
        assert first.json["result"]["epoch"] == second.json["result"]["epoch"] != ""


async def test_tags_reach_the_subscribers():
    async with worker().open() as one:
        client = await entered(one)
        await ask(client, "subscribe", channel="news")
        await post(one, "publish", {"channel": "news", "data": 1, "tags": {"kind": "goal"}})
        assert await pushed(client) == {"data": 1, "tags": {"kind": "goal"}}


async def test_a_broadcast_answers_for_each_channel_in_order():
    async with worker().open() as one:
        channels = ["kept:a", "nowhere:a", "", "kept:b", 7]
        answer = await post(one, "broadcast", {"channels": channels, "data": 1})
        responses = answer.json["result"]["responses"]
        assert [list(response) for response in responses] == [
            ["result"], ["error"], ["error"], ["result"], ["error"],
        ]  # fmt: skip
        codes = [one["error"]["code"] for one in responses if "error" in one]
        assert codes == [102, 107, 107]


async def test_a_broadcast_to_many_channels_reaches_all_of_them_in_order():
    async with worker().open() as one:
        names = [f"kept:{number}" for number in range(1000)]
        for data in (1, 2):
            answer = await post(one, "broadcast", {"channels": names, "data": data})
            found = [each["result"]["offset"] for each in answer.json["result"]["responses"]]
            assert found == [data] * 1000
        assert one.counters.publications == 2000


async def test_a_repeated_idempotency_key_gets_the_first_result_and_is_counted():
    async with worker().open() as one:
        client = await entered(one)
        await ask(client, "subscribe", channel="kept:a")
        request = {"channel": "kept:a", "data": 1, "idempotency_key": "k"}
        first = await post(one, "publish", request)
        again = await post(one, "publish", request | {"data": 2})
        await post(one, "publish", {"channel": "kept:a", "data": 3})
        assert first.json == again.json
        await client.until(lambda: client.pubs() == [1, 3])
        assert one.counters.publications == 2
        assert one.counters.publications_suppressed == {"idempotency_key": 1, "version": 0}


async def test_an_old_version_is_dropped_and_the_position_is_answered():
    async with worker().open() as one:
        results = []
        for version in (2, 1, 3):
            request = {"channel": "kept:a", "data": version, "version": version}
            results.append((await post(one, "publish", request)).json["result"]["offset"])
        assert results == [1, 1, 2]
        assert one.counters.publications_suppressed["version"] == 1


async def test_the_options_hold_for_each_channel_of_a_broadcast():
    async with worker().open() as one:
        await post(one, "publish", {"channel": "kept:a", "data": 0, "idempotency_key": "k"})
        request = {"channels": ["kept:a", "kept:b"], "data": 1, "idempotency_key": "k"}
        answer = await post(one, "broadcast", request)
        assert [each["result"]["offset"] for each in answer.json["result"]["responses"]] == [1, 1]
        assert one.counters.publications == 2


async def test_a_publication_that_skips_history_reaches_subscribers_and_is_not_kept():
    async with worker().open() as one:
        client = await entered(one)
        await ask(client, "subscribe", channel="kept:a")
        request = {"channel": "kept:a", "data": 1, "skip_history": True}
        assert (await post(one, "publish", request)).json == {"result": {}}
        await post(one, "publish", {"channel": "kept:a", "data": 2})
        await client.until(lambda: client.pubs() == [1, 2])
        history = (await ask(client, "history", channel="kept:a", limit=-1))["history"]
        assert [(each["offset"], each["data"]) for each in history["publications"]] == [(1, 2)]


@pytest.mark.parametrize("parallel", [False, True])
async def test_a_batch_is_answered_in_order(parallel: bool):
    commands = [
        {"publish": {"channel": "kept:a", "data": 1}},
        {"publish": {"channel": "kept:a"}},
        {"nothing": {}},
        {"broadcast": {"channels": ["kept:a"], "data": 2}},
    ]
    async with worker().open() as one:
        answer = await post(one, "batch", {"commands": commands, "parallel": parallel})
        first, second, third, fourth = answer.json["replies"]
        assert first["publish"]["offset"] == 1
        assert (second["error"]["code"], third["error"]["code"]) == (107, 104)
        assert fourth["broadcast"]["responses"][0]["result"]["offset"] == 2


@pytest.mark.parametrize(
    ("method", "body", "code"),
    [
        ("publish", {"data": 1}, 107),
        ("publish", {"channel": "", "data": 1}, 107),
        ("publish", {"channel": 1, "data": 1}, 107),
        ("publish", {"channel": "news"}, 107),
        ("publish", {"channel": "nowhere:a", "data": 1}, 102),
        ("publish", {"channel": "n" * 256, "data": 1}, 107),
        ("publish", {"channel": "news", "data": 1, "tags": {"a": 1}}, 107),
        ("publish", {"channel": "news", "b64data": "MQ"}, 107),
        ("publish", {"channel": "news", "b64data": 1}, 107),
        ("publish", {"channel": "news", "data": 1, "idempotency_key": 1}, 107),
        ("publish", {"channel": "news", "data": 1, "skip_history": 1}, 107),
        ("publish", {"channel": "news", "data": 1, "delta": 1}, 107),
        ("publish", {"channel": "news", "data": 1, "version": "1"}, 107),
        ("publish", {"channel": "news", "data": 1, "version": True}, 107),
        ("publish", {"channel": "news", "data": 1, "version": -1}, 107),
        ("publish", {"channel": "news", "data": 1, "version": 2**53}, 107),
        ("publish", {"channel": "news", "data": 1, "version": 1, "version_epoch": 2}, 107),
        ("broadcast", {"channels": ["news"], "data": 1, "idempotency_key": []}, 107),
        ("broadcast", {"channels": [], "data": 1}, 107),
        ("broadcast", {"channels": "news", "data": 1}, 107),
        ("batch", {"commands": [{"batch": {"commands": []}}]}, 107),
        ("batch", {"commands": [{"publish": {}, "broadcast": {}}]}, 107),
        ("batch", {"commands": [1]}, 107),
        ("batch", {}, 107),
        ("nothing", {}, 104),
        ("__class__", {}, 104),
    ],
)
async def test_a_wrong_request_is_refused_with_the_code_of_the_api(
    method: str, body: dict[str, Any], code: int
):
    status = {102: 404, 104: 404, 107: 400, 108: 400}[code]
    async with worker().open() as one:
        answer = await post(one, method, body)
        assert (answer.status, answer.json["error"]["code"]) == (200, code)
        headers = {"X-API-Key": KEY, "X-Centrifugo-Error-Mode": "transport"}
        answer = await post(one, method, body, headers)
        assert (answer.status, answer.json["code"]) == (status, code)
        assert one.counters.api_requests == {
            "ok": 0, "error": 2, "unauthorized": 0, "forbidden": 0,
        }  # fmt: skip
        assert one.counters.api_errors[str(code)] == 2


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b"null", b'{"a":1}{', b"\xff"])
async def test_a_body_that_is_no_object_is_400(body: bytes):
    async with worker().open() as one:
        answer = await post(one, "publish", body)
        assert (answer.status, answer.body) == (400, b"the body must be one JSON object\n")
        assert one.counters.api_errors["107"] == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": "ü"},
        {"Authorization": KEY},
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": "apikey"},
    ],
)
async def test_without_the_key_nothing_is_published(headers: dict[str, str]):
    async with worker().open() as one:
        answer = await post(one, "publish", {"channel": "kept:a", "data": 1}, headers)
        assert (answer.status, answer.body) == (401, b"")
        assert one.counters.publications == 0
        assert one.counters.api_requests["unauthorized"] == 1


async def test_the_key_may_be_an_authorization():
    async with worker().open() as one:
        headers = {"Authorization": f"apikey {KEY}"}
        answer = await post(one, "publish", {"channel": "kept:a", "data": 1}, headers)
        assert answer.json["result"]["offset"] == 1


async def test_without_a_key_of_its_own_a_cluster_has_no_api():
    async with worker(key="").open() as one:
        answer = await post(one, "publish", {"channel": "kept:a", "data": 1})
        assert answer.status == 404
        assert one.counters.publications == 0


async def test_a_worker_that_drains_refuses_before_it_publishes():
    async with worker().open() as one:
        one.is_ready = False
        answer = await post(one, "publish", {"channel": "kept:a", "data": 1})
        assert answer.status == 503
        assert one.counters.publications == 0


async def test_a_store_that_fails_is_error_100():
    async with worker().open() as one:
        one.store.is_up = False
        answer = await post(one, "publish", {"channel": "kept:a", "data": 1})
        assert answer.json["error"]["code"] == 100
        assert one.counters.errors["broker"] == 1
