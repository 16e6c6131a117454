"""The methods of the server API about users, streams and workers, over two workers of one store."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import time
from typing import Any

import aiohttp
import pytest

from cluster.config import ChannelConfig, ChannelOptions, Namespace
from cluster.turn_budget import ITEMS_PER_TURN
from tests.harness.waiting import until, until_async
from tests.unit.api_workers import (
    api_config,
    call,
    code_of,
    connected,
    push,
    two_workers,
)
from tests.unit.local_worker import (
    ask,
    changed,
)
from tests.unit.test_server_api import KEY, post
from tests.unit.test_websocket_drain import CALLERS, Leaves

# --- users ---------------------------------------------------------------------------------------


async def test_a_disconnect_reaches_the_connections_of_every_worker():
    async with two_workers() as (one, two):
        callers = [await connected(each) for each in (one, two, two)]
        assert await call(one, "disconnect", user="") == {}
        for caller, _, _ in callers:
            assert await caller.closed() == (3503, "force disconnect")
        assert (one.node.clients.count, two.node.clients.count, two.node.clients.users) == (0, 0, 0)


async def test_a_disconnect_may_be_for_one_connection_one_session_or_all_but_some():
    async with two_workers() as (one, two):
        first, client, _ = await connected(two)
        second, _, session = await connected(two)
        third, spared, _ = await connected(two)
        fourth, _, _ = await connected(one)
        disconnect = {"code": 4321, "reason": "enough"}
        await call(one, "disconnect", user="", client=client, disconnect=disconnect)
        assert await first.closed() == (4321, "enough")
        await call(one, "disconnect", user="", session=session)
        assert (await second.closed())[0] == 3503
        await call(one, "disconnect", user="", whitelist=[spared])
        assert (await fourth.closed())[0] == 3503
        assert "publish" in await ask(third, "publish", channel="news", data=1)


async def test_a_user_with_many_connections_is_disconnected_some_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
):
    async with two_workers() as (one, two):
        callers = [await connected(two) for _ in range(CALLERS)]
        disconnected, leaves = two.node.disconnected, Leaves()

        def counted(*args: Any, **options: Any) -> None:
            leaves.add()
            disconnected(*args, **options)

        monkeypatch.setattr(two.node, "disconnected", counted)
        turns = asyncio.create_task(leaves.count_turns())
        await call(one, "disconnect", user="")
        for caller, _, _ in callers:
            assert (await caller.closed())[0] == 3503
        turns.cancel()
        assert leaves.most_in_a_turn <= ITEMS_PER_TURN


async def test_another_users_connections_stay():
    async with two_workers() as (one, two):
        caller, _, _ = await connected(two)
        await call(one, "disconnect", user="42")
        await until(lambda: two.counters.control["received"] == 1, 10, "it was received")
        assert "publish" in await ask(caller, "publish", channel="news", data=1)


async def test_a_subscribe_is_a_push_with_data_and_belongs_to_the_session():
    async with two_workers() as (one, two):
        caller, _, session = await connected(two)
        await call(one, "publish", channel="kept:a", data=1)
        await call(one, "subscribe", user="", channel="kept:a", data={"hello": 1})
        pushed = await push(caller, "subscribe")
        assert pushed["channel"] == "kept:a"
        assert pushed["subscribe"]["data"] == {"hello": 1}
        assert (pushed["subscribe"]["recoverable"], pushed["subscribe"]["offset"]) == (True, 1)
        await until(
            lambda: one.store.sessions[session].session.channels == ("kept:a",), 10, "it is kept"
        )
        await call(one, "publish", channel="kept:a", data=2)
        await caller.until(lambda: caller.pubs() == [2])
        # The client comes back with its session, at another worker.
        again = await one.caller()
        result = await again.connect(data={"session": session})
        assert set(result["subs"]) == {"kept:a"}


async def test_a_subscribe_recovers_since_a_position():
    async with two_workers() as (one, two):
        caller, _, _ = await connected(two)
        for data in (1, 2, 3):
            position = await call(one, "publish", channel="kept:a", data=data)
        since = {"offset": 1, "epoch": position["epoch"]}
        await call(one, "subscribe", user="", channel="kept:a", recover_since=since)
        await caller.until(lambda: caller.pubs() == [2, 3])
        await call(one, "publish", channel="kept:a", data=4)
        await caller.until(lambda: caller.pubs() == [2, 3, 4])
        assert (await push(caller, "subscribe"))["subscribe"]["recovered"] is True


async def test_a_subscribe_of_one_connection_ends_with_it():
    async with two_workers() as (one, two):
        caller, client, session = await connected(two)
        await call(one, "subscribe", user="", channel="news", client=client)
        await push(caller, "subscribe")
        await two.sessions.update(session, state={"n": 1})
        await push(caller, "message")
        await call(one, "publish", channel="news", data=1)
        await caller.until(lambda: caller.pubs() == [1])
        assert one.store.sessions[session].session.channels == ()


async def test_a_subscribe_with_info_expiry_and_override_is_for_open_connections():
    async with two_workers() as (one, two):
        caller, _, session = await connected(two)
        ends = int(time.time()) + 600
        await call(
            one, "subscribe", user="", channel="kept:a", b64info="eyJyb2xlIjoxfQ==",
            expire_at=ends, override={"force_recovery": {"value": False}},
        )  # fmt: skip
        pushed = (await push(caller, "subscribe"))["subscribe"]
        assert "recoverable" not in pushed
        [client] = two.node.clients.of("")
        subscription = client.connection.channels["kept:a"]
        assert (subscription.info, subscription.expires_at) == (b'{"role":1}', ends)
        await ask(caller, "publish", channel="kept:a", data=1)
        await caller.until(lambda: caller.pubs() == [1])
        pub = next(one["push"]["pub"] for one in caller.heard if "pub" in one.get("push", {}))
        assert pub["info"]["chan_info"] == {"role": 1}
        assert one.store.sessions[session].session.channels == ()


async def test_a_subscription_of_a_backend_ends_its_connection_when_it_has_expired():
    config = api_config()
    client = dataclasses.replace(config.client, expired_sub_close_delay=0.0)
    async with two_workers(changed(config, client=client)) as (one, two):
        caller, _, _ = await connected(two)
        ends = int(time.time()) + 2
        await call(one, "subscribe", user="", channel="news", expire_at=ends)
        await push(caller, "subscribe")
        assert (await caller.closed())[0] == 3006
        assert time.time() > ends


async def test_an_unsubscribe_is_a_push_and_leaves_the_session():
    async with two_workers() as (one, two):
        caller, _, session = await connected(two)
        await call(one, "subscribe", user="", channel="news")
        await push(caller, "subscribe")
        record = one.store.sessions[session]
        await until(lambda: record.session.channels == ("news",), 10, "it is kept")
        await ask(caller, "subscribe", channel="mine")
        for channel in ("news", "mine", "never"):
            await call(one, "unsubscribe", user="", channel=channel)
        pushes = await caller.until(
            lambda: (
                found
                if len(
                    found := [
                        each["push"]
                        for each in caller.heard
                        if "unsubscribe" in each.get("push", {})
                    ]
                )
                == 2
                else []
            )
        )
        assert [each["channel"] for each in pushes] == ["news", "mine"]
        assert pushes[0]["unsubscribe"] == {"code": 2000, "reason": "server unsubscribe"}
        await until(lambda: record.session.channels == (), 10, "it is not kept")


async def test_a_refresh_sets_the_expiry_or_closes():
    async with two_workers() as (one, two):
        caller, client, _ = await connected(two)
        other, _, _ = await connected(two)
        await call(one, "refresh", user="", client=client, expire_at=int(time.time()) + 100)
        pushed = await push(caller, "refresh")
        assert pushed["refresh"]["expires"] is True
        assert 90 <= pushed["refresh"]["ttl"] <= 100
        assert "publish" in await ask(other, "publish", channel="news", data=1)
        await call(one, "refresh", user="", client=client, expired=True)
        assert await caller.closed() == (3005, "connection expired")
        await call(one, "refresh", user="", expire_at=int(time.time()) - 1)
        assert await other.closed() == (3005, "connection expired")


# --- streams -------------------------------------------------------------------------------------


async def test_history_pages_both_ways_and_is_not_capped():
    async with two_workers() as (one, two):
        await call(one, "broadcast", channels=["kept:a"] * 10, data={"n": 1})
        everything = await call(two, "history", channel="kept:a", limit=-1)
        assert [each["offset"] for each in everything["publications"]] == list(range(1, 11))
        epoch = everything["epoch"]
        assert (await call(two, "history", channel="kept:a"))["publications"] == []
        for params, offsets in (
            ({"limit": 2}, [1, 2]),
            ({"limit": 2, "since": {"offset": 4, "epoch": epoch}}, [5, 6]),
            ({"limit": 2, "reverse": True}, [10, 9]),
            ({"limit": 2, "since": {"offset": 4, "epoch": epoch}, "reverse": True}, [3, 2]),
        ):
            found = await call(two, "history", channel="kept:a", **params)
            assert [each["offset"] for each in found["publications"]] == offsets
        since = {"offset": 1, "epoch": "other"}
        assert await code_of(one, "history", channel="kept:a", limit=1, since=since) == 112
        assert await code_of(one, "history", channel="news", limit=1) == 108


async def test_history_larger_than_one_read_is_read_in_pieces():
    async with two_workers() as (one, two):
        text = "x" * 200_000
        for _ in range(8):
            await call(one, "publish", channel="kept:a", data=text)
        found = await call(two, "history", channel="kept:a", limit=-1)
        assert [each["offset"] for each in found["publications"]] == list(range(1, 9))
        found = await call(two, "history", channel="kept:a", limit=5, reverse=True)
        assert [each["offset"] for each in found["publications"]] == [8, 7, 6, 5, 4]


async def test_removed_history_keeps_its_position():
    async with two_workers() as (one, two):
        first = await call(one, "publish", channel="kept:a", data=1)
        assert await call(two, "history_remove", channel="kept:a") == {}
        found = await call(one, "history", channel="kept:a", limit=-1)
        assert found == {"publications": [], "offset": 1, "epoch": first["epoch"]}
        second = await call(one, "publish", channel="kept:a", data=2)
        assert second == {"offset": 2, "epoch": first["epoch"]}
        assert await code_of(one, "history_remove", channel="news") == 108


async def test_data_may_be_base64_of_json_text():
    async with two_workers() as (one, two):
        caller, _, _ = await connected(two)
        await ask(caller, "subscribe", channel="news")
        encoded = base64.b64encode(b'{"text": "\xc3\xa9", "n": 1.50}').decode()
        await call(one, "publish", channel="news", b64data=encoded)
        await caller.until(lambda: caller.pubs() == [{"text": "é", "n": 1.5}])
        assert any(b'"n": 1.50' in line for line in caller.lines)


async def test_base64_of_other_bytes_is_a_data_url_for_json_clients():
    async with two_workers() as (one, two):
        caller, _, _ = await connected(two)
        await ask(caller, "subscribe", channel="news")
        await call(one, "publish", channel="news", b64data=base64.b64encode(b"\0\1\2").decode())
        await caller.until(lambda: caller.pubs() == ["data:;base64,AAEC"])


# --- workers -------------------------------------------------------------------------------------


async def test_channels_are_counted_over_all_workers():
    async with two_workers() as (one, two):
        for each, channel in ((one, "news"), (two, "news"), (two, "kept:a")):
            caller, _, _ = await connected(each)
            await ask(caller, "subscribe", channel=channel)
        found = await call(one, "channels")
        assert found == {"channels": {"news": {"num_clients": 2}, "kept:a": {"num_clients": 1}}}
        assert set((await call(one, "channels", pattern="kept:*"))["channels"]) == {"kept:a"}


async def test_connections_are_paged_over_all_workers():
    async with two_workers() as (one, two):
        ids = sorted([(await connected(each))[1] for each in (one, two) * 6])
        found: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = await call(one, "connections", user="", limit=5, **cursor)
            found += page["connections"]
            if "cursor" not in page:
                break
            cursor = {"cursor": page["cursor"]}
        assert found == ids
        about = page["connections"][found[-1]]
        assert (about["user"], about["transport"], about["num_channels"]) == ("", "websocket", 0)
        assert about["node"] in {one.control.uid, two.control.uid}
        assert (await call(one, "connections", user="42"))["connections"] == {}


async def test_info_has_every_worker():
    async with two_workers() as (one, two):
        await connected(two)
        nodes = (await call(one, "info"))["nodes"]
        assert {each["uid"] for each in nodes} == {one.control.uid, two.control.uid}
        assert sorted(each["num_clients"] for each in nodes) == [0, 1]
        assert all(each["process"]["rss"] > 1_000_000 for each in nodes)


async def test_a_worker_that_does_not_answer_is_reported_in_the_result():
    async with two_workers() as (one, two):
        two.control._kinds.clear()
        found = await call(one, "info")
        assert (len(found["nodes"]), found["missing_workers"]) == (1, 1)
        assert one.counters.control["unanswered"] == 1


@pytest.mark.parametrize("method", ["channels", "info", "connections"])
async def test_what_is_read_about_workers_answers_get(method: str):
    async with two_workers() as (one, _), aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{one.port}/api/{method}"
        query = {"user": "", "limit": "7"} if method == "connections" else {}
        async with http.get(url, params=query, headers={"X-API-Key": KEY}) as response:
            assert method.replace("info", "nodes") in (await response.json())["result"]
        async with http.get(url, params=query | {"api_key": KEY}) as response:
            assert response.status == 200
        async with http.get(url, params=query) as response:
            assert response.status == 401


async def test_rpc_calls_the_handlers_of_the_worker():
    async def later(user: str, data: bytes) -> Any:
        return {"user": user, "sent": json.loads(data)}

    def breaks(user: str, data: bytes) -> Any:
        raise ValueError("what it was asked")

    async with two_workers(rpc={"later": later, "breaks": breaks}) as (one, _):
        found = await call(one, "rpc", method="later", params={"n": 1})
        assert found == {"data": {"user": "", "sent": {"n": 1}}}
        assert await code_of(one, "rpc", method="unknown") == 104
        assert await code_of(one, "rpc", method="breaks") == 100
        assert one.counters.errors["handler"] == 1


# --- a batch -------------------------------------------------------------------------------------


async def test_a_batch_of_all_methods_is_answered_in_order():
    commands = [
        {"publish": {"channel": "kept:a", "data": 1}},
        {"publish": {"channel": "kept:a", "data": 2}},
        {"history": {"channel": "kept:a", "limit": -1}},
        {"publish": {"channel": "kept:a"}},
        {"history_remove": {"channel": "kept:a"}},
        {"publish": {"channel": "kept:a", "data": 3}},
        {"history": {"channel": "kept:a", "limit": -1}},
        {"channels": {}},
        {"presence": {"channel": "kept:a"}},
        {"disconnect": {"user": "42"}},
    ]
    async with two_workers() as (one, _):
        replies = (await post(one, "batch", {"commands": commands})).json["replies"]
        assert [next(iter(each)) for each in replies] == [
            "publish", "publish", "history", "error", "history_remove", "publish", "history",
            "channels", "error", "disconnect",
        ]  # fmt: skip
        assert [each["publish"]["offset"] for each in replies if "publish" in each] == [1, 2, 3]
        histories = [each["history"]["publications"] for each in replies if "history" in each]
        assert [[pub["offset"] for pub in each] for each in histories] == [[1, 2], [3]]
        assert one.counters.api_errors["107"] == 1


async def test_the_publishes_of_a_batch_do_not_wait_for_each_other():
    async with two_workers() as (one, _):
        waiting = 0
        most = 0
        publish = one.broker.publish

        def counted(channel: str, body: bytes, history: Any, ms: int, done: Any) -> None:
            nonlocal waiting, most
            waiting += 1
            most = max(most, waiting)

            def answered(reply: Any) -> None:
                nonlocal waiting
                waiting -= 1
                done(reply)

            publish(channel, body, history, ms, answered)

        one.broker.publish = counted  # type: ignore[method-assign, assignment]
        commands = [{"publish": {"channel": "kept:a", "data": n}} for n in range(300)]
        replies = (await post(one, "batch", {"commands": commands})).json["replies"]
        assert [each["publish"]["offset"] for each in replies] == list(range(1, 301))
        assert most > 50


FORMATS = ChannelConfig(
    namespaces=tuple(
        Namespace(name, ChannelOptions(publication_data_format=name))
        for name in ("json", "json_object", "binary")
    )
)


@pytest.mark.parametrize(
    ("sent", "refused_by"),
    [
        ({"data": {"a": 1}}, set()),
        ({"data": [1]}, {"json_object"}),
        ({"data": "text"}, {"json_object"}),
        ({"b64data": "eyJhIjoxfQ=="}, set()),
        ({"b64data": "AP8B"}, {"json", "json_object"}),
    ],
)
async def test_data_of_a_backend_must_have_the_format_of_the_namespace(
    sent: dict[str, Any], refused_by: set[str]
):
    async with two_workers(changed(api_config(), channel=FORMATS)) as (one, _):
        for name in ("json", "json_object", "binary"):
            answer = (await post(one, "publish", {"channel": f"{name}:a", **sent})).json
            assert answer.get("error", {}).get("code", 0) == (107 if name in refused_by else 0)
            each = (await call(one, "broadcast", channels=[f"{name}:a"], **sent))["responses"]
            assert ("error" in each[0]) is (name in refused_by)
        assert "error" not in (await post(one, "publish", {"channel": "a", **sent})).json


async def test_a_refresh_with_info_is_seen_in_the_presence_at_all_workers():
    here = ChannelOptions(presence=True)
    config = changed(api_config(), channel=ChannelConfig(without_namespace=here))
    async with two_workers(config) as (one, two):
        caller, client, _ = await connected(two)
        await ask(caller, "subscribe", channel="a")
        assert "conn_info" not in (await call(one, "presence", channel="a"))["presence"][client]
        await call(one, "refresh", user="", client=client, info={"name": "Ann"}, expire_at=0)

        async def is_seen() -> bool:
            found = (await call(one, "presence", channel="a"))["presence"][client]
            return found.get("conn_info") == {"name": "Ann"}

        await until_async(is_seen, 10, "the new info is seen")
        assert (await call(one, "presence_stats", channel="a")) == {
            "num_clients": 1,
            "num_users": 1,
        }
