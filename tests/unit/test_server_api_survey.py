"""What the server API tells of connections and workers, beside where they are."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from cluster.api import read_methods, server_methods
from cluster.config import ChannelConfig
from cluster.node import survey
from tests.unit.api_workers import api_config, call, connected, two_workers
from tests.unit.local_worker import RECOVERABLE, ask, changed, entered
from tests.unit.test_server_api import post
from tests.unit.test_server_api_commands import send as send_commands
from tests.unit.test_websocket_protobuf import protobuf_caller


async def test_a_connection_says_which_application_it_is_of_as_its_sdk_reports():
    async with two_workers() as (one, two):
        _, told, _ = await connected(two, name="js", version="1.2.3")
        _, long, _ = await connected(two, name="n" * 65, version="v" * 65)
        _, silent, _ = await connected(two)
        found = (await call(one, "connections", user=""))["connections"]
        apps = {each: (about["app_name"], about["app_version"]) for each, about in found.items()}
        assert apps == {told: ("js", "1.2.3"), long: ("n" * 64, "v" * 64), silent: ("", "")}


async def test_info_tells_what_each_worker_has_counted_since_the_last_question():
    async with two_workers() as (one, two):
        caller, _, _ = await connected(two)
        first = {each["uid"]: each["metrics"] for each in (await call(one, "info"))["nodes"]}
        assert first[two.control.uid]["items"]["connections_opened"] == 1
        assert first[one.control.uid]["items"]["connections_opened"] == 0
        await ask(caller, "publish", channel="news", data=1)
        second = {each["uid"]: each["metrics"] for each in (await call(one, "info"))["nodes"]}
        items = second[two.control.uid]["items"]
        assert (items["connections_opened"], items["messages_in"], items["publications"]) == (
            0,
            1,
            1,
        )
        assert second[two.control.uid]["interval"] > 0


async def test_channels_count_subscribers_of_both_codecs_with_filters_and_with_deltas():
    options = replace(RECOVERABLE, allow_tags_filter=True, allowed_delta_types=("fossil",))
    channels = ChannelConfig(without_namespace=options)
    config = changed(api_config(), channel=channels)
    goals = {"key": "kind", "cmp": "eq", "val": "goal"}
    async with two_workers(config) as (one, two):
        for worker in (one, two):
            for subscription in ({}, {"tf": goals}, {"delta": "fossil"}):
                caller = await entered(worker)
                await ask(caller, "subscribe", channel="all", **subscription)
        dart = await protobuf_caller(two, "?format=protobuf")
        for number, channel in enumerate(("all", "dart"), 2):
            assert not (await dart.ask(number, "subscribe", channel=channel)).HasField("error")
        filtered = await entered(one)
        await ask(filtered, "subscribe", channel="filtered", tf=goals)
        changes = await entered(one)
        await ask(changes, "subscribe", channel="changes", delta="fossil")
        found = (await call(one, "channels"))["channels"]
        counts = {name: about["num_clients"] for name, about in found.items()}
        assert counts == {"all": 7, "dart": 1, "filtered": 1, "changes": 1}
        nodes = (await call(one, "info"))["nodes"]
        assert sum(each["num_subs"] for each in nodes) == sum(counts.values())


# --- bounds --------------------------------------------------------------------------------------


async def test_a_worker_with_more_channels_than_it_may_name_says_that_some_are_missing(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(survey, "MOST_CHANNELS", 3)
    async with two_workers() as (one, two):
        caller, _, _ = await connected(two)
        for number in range(3):
            await ask(caller, "subscribe", channel=f"news{number}")
        whole = await call(one, "channels")
        assert (len(whole["channels"]), "is_cut" in whole) == (3, False)
        await ask(caller, "subscribe", channel="kept:a")
        cut = await call(one, "channels")
        assert (len(cut["channels"]), cut["is_cut"]) == (3, True)
        # What does not match needs no place.
        assert await call(one, "channels", pattern="kept:*") == {
            "channels": {"kept:a": {"num_clients": 1}}
        }


@pytest.mark.parametrize("answer_bytes", [500, 1500, 3000])
async def test_pages_have_every_connection_once_although_the_answers_of_workers_are_cut(
    monkeypatch: pytest.MonkeyPatch, answer_bytes: int
):
    monkeypatch.setattr(survey, "_ANSWER_BYTES", answer_bytes)
    async with two_workers() as (one, two):
        ids = sorted([(await connected(each))[1] for each in (one, two, two, two) * 4])
        found: list[str] = []
        page = await call(one, "connections", user="", limit=9)
        while True:
            assert len(page["connections"]) <= 9
            found += page["connections"]
            if "cursor" not in page:
                break
            page = await call(one, "connections", user="", limit=9, cursor=page["cursor"])
        assert found == ids


async def test_a_page_has_no_more_connections_than_one_may_ask_for(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(read_methods, "MOST_CONNECTIONS", 2)
    async with two_workers() as (one, two):
        for each in (one, two, two):
            await connected(each)
        page = await call(one, "connections", user="", limit=1_000_000)
        assert (len(page["connections"]), bool(page["cursor"])) == (2, True)


async def test_a_page_of_history_has_8_mib_at_most_and_a_reader_goes_on_behind_it():
    async with two_workers() as (one, two):
        text = "x" * 900_000
        for _ in range(10):
            await call(one, "publish", channel="kept:a", data=text)
        page = await call(two, "history", channel="kept:a", limit=-1)
        assert [each["offset"] for each in page["publications"]] == [*range(1, 10)]
        assert two.counters.stream_reads["cut"] == 1
        since = {"offset": 9, "epoch": page["epoch"]}
        rest = await call(two, "history", channel="kept:a", limit=-1, since=since)
        assert [each["offset"] for each in rest["publications"]] == [10]
        assert two.counters.stream_reads["cut"] == 1


@pytest.mark.parametrize("is_too_many", [False, True])
async def test_a_request_with_too_many_commands_or_channels_is_refused_and_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch, is_too_many: bool
):
    monkeypatch.setattr(server_methods, "MAXIMUM_COMMANDS", 3)
    monkeypatch.setattr(server_methods, "MAXIMUM_CHANNELS", 3)
    count = 4 if is_too_many else 3
    publish = {"channel": "news", "data": 1}
    async with two_workers() as (one, _):
        answers = [
            await post(one, "batch", {"commands": [{"publish": publish}] * count}),
            await post(one, "broadcast", {"channels": ["news"] * count, "data": 1}),
        ]
        codes = [answer.json.get("error", {}).get("code", 0) for answer in answers]
        assert codes == ([107, 107] if is_too_many else [0, 0])
        lines = b"\n".join([orjson.dumps({"method": "publish", "params": publish})] * count)
        answer = await send_commands(one, lines)
        assert (answer.body == b'{"error":{"code":107,"message":"bad request"}}') is is_too_many
        assert one.counters.publications == (0 if is_too_many else 9)
