"""Recovery of the newest publication, filters in a recovery, and every row of the table of history reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.broker import StreamRead
from cluster.config import ChannelOptions
from cluster.node import recovery
from cluster.protocol import Position, Publication
from tests.unit.local_worker import (
    RECOVERABLE,
    Caller,
    LocalWorker,
    ask,
    configured,
    entered,
    published,
)

CACHE = replace(RECOVERABLE, force_recovery_mode="cache")
AUTOMATIC = replace(CACHE, auto_cache_recover=True)
E = "epoch"
GOALS = {"key": "kind", "cmp": "eq", "val": "goal"}


@pytest.mark.parametrize(
    ("offset", "epoch", "top", "newest", "recovered"),
    [
        (0, "", 5, 5, [5]),
        (0, E, 5, 5, [5]),
        (4, E, 5, 5, [5]),
        (5, E, 5, 5, []),
        (5, "other", 5, 5, [5]),
        (5, "", 5, 5, [5]),
        (9, E, 5, 5, [5]),
        (4, E, 5, 4, None),
        (5, E, 5, 0, []),
        (4, E, 5, 0, None),
        (5, "other", 5, 0, None),
        (0, "", 0, 0, None),
        (0, "_", 5, 5, [5]),
    ],
)
def test_the_newest_publication_is_recovered_as_the_protocol_says(
    offset: int, epoch: str, top: int, newest: int, recovered: list[int] | None
):
    kept = [Publication(newest, E, b'{"data":1}')] if newest else []
    found = recovery.from_cache(StreamRead(Position(top, E), kept), Position(offset, epoch), None)
    assert (None if found is None else [one.offset for one in found]) == recovered


async def back(worker: LocalWorker, **params: Any) -> dict[str, Any]:
    """What a new client's subscribe returns."""
    caller = await entered(worker)
    answer: dict[str, Any] = await ask(caller, "subscribe", channel="a", **params)
    return answer


async def test_an_empty_position_recovers_the_newest_publication_and_then_live_ones():
    async with LocalWorker(configured(options=CACHE)).open() as worker:
        await published(await entered(worker), 3)
        caller = await entered(worker)
        result = (await ask(caller, "subscribe", channel="a", recover=True))["subscribe"]
        assert (result["was_recovering"], result["recovered"]) == (True, True)
        assert [one["offset"] for one in result["publications"]] == [3]
        assert "offset" not in result, "it is the one that was requested"
        await published(caller, 1, first=4)
        await caller.until(lambda: caller.pubs() == [4])


async def test_without_recover_nothing_is_recovered_from_a_cache():
    async with LocalWorker(configured(options=CACHE)).open() as worker:
        await published(await entered(worker), 2)
        result = (await back(worker))["subscribe"]
        assert "was_recovering" not in result
        assert "publications" not in result
        assert result["offset"] == 2


async def test_the_newest_publication_is_recovered_however_many_were_missed():
    async with LocalWorker(configured(options=CACHE)).open() as worker:
        speaker = await entered(worker)
        await published(speaker, 1)
        epoch = (await back(worker))["subscribe"]["epoch"]
        await published(speaker, 30, first=2)
        result = (await back(worker, recover=True, offset=1, epoch=epoch))["subscribe"]
        assert [one["offset"] for one in result["publications"]] == [31]
        assert (result["recovered"], result["offset"]) == (True, 1)
        same = (await back(worker, recover=True, offset=31, epoch=epoch))["subscribe"]
        assert (same["recovered"], same["offset"], "publications" in same) == (True, 31, False)


async def test_an_empty_cache_is_not_recovered_and_is_112_if_the_client_wants_to_know():
    async with LocalWorker(configured(options=CACHE)).open() as worker:
        result = (await back(worker, recover=True))["subscribe"]
        assert result["was_recovering"] is True
        assert "recovered" not in result
        refused = await back(worker, recover=True, flag=2)
        assert refused["error"]["code"] == 112


async def test_every_subscribe_recovers_the_newest_if_the_namespace_says_so():
    async with LocalWorker(configured(options=AUTOMATIC)).open() as worker:
        empty = await back(worker, flag=2)
        assert "subscribe" in empty, "it did not ask to recover"
        await published(await entered(worker), 2)
        result = (await back(worker))["subscribe"]
        assert (result["was_recovering"], result["recovered"]) == (True, True)
        assert [one["offset"] for one in result["publications"]] == [2]


async def test_server_side_subscriptions_recover_the_newest_too():
    async with LocalWorker(configured(options=AUTOMATIC)).open() as worker:
        await published(await entered(worker), 2)
        owner = await worker.caller()
        session = (await owner.connect())["data"]["session"]["id"]
        await worker.sessions.update(session, channels=("a",))
        again = await worker.caller()
        subs = (await again.connect(data={"session": session}))["subs"]
        assert subs["a"]["recovered"] is True
        assert [one["offset"] for one in subs["a"]["publications"]] == [2]


# --- §6.4 and §6.6 ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("position", "code"),
    [
        ({"offset": 0, "epoch": "_"}, 112),
        ({"offset": 7, "epoch": ""}, 112),
        ({"offset": 1, "epoch": "other"}, 112),
        ({"offset": 1, "epoch": ""}, 0),
    ],
)
async def test_an_impossible_recovery_is_112_for_a_client_that_rejects_it(
    position: dict[str, Any], code: int
):
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        await published(await entered(worker), 3)
        answer = await back(worker, recover=True, flag=2, **position)
        assert answer.get("error", {}).get("code", 0) == code
        plain = (await back(worker, recover=True, **position))["subscribe"]
        assert plain["was_recovering"] is True
        assert plain.get("recovered", False) is (code == 0)
        assert plain["offset"] == (3 if code else position["offset"])


async def test_the_position_of_an_invalidated_state_is_never_recovered():
    """The SDKs send it after 2502 and 3014: also on a channel where nothing was published."""
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        result = (await back(worker, recover=True, epoch="_"))["subscribe"]
        assert (result["was_recovering"], result.get("recovered", False)) == (True, False)


@pytest.mark.parametrize(
    "options",
    [ChannelOptions(), replace(RECOVERABLE, force_recovery=False, force_positioning=True)],
    ids=["no history", "positioned"],
)
async def test_a_recovery_that_a_channel_does_not_offer_was_asked_for_and_did_not_succeed(
    options: ChannelOptions,
):
    async with LocalWorker(configured(options=options)).open() as worker:
        await published(await entered(worker), 2)
        result = (await back(worker, recover=True, offset=1))["subscribe"]
        assert result["was_recovering"] is True
        assert "recovered" not in result
        assert "publications" not in result
        assert result.get("positioned", False) is options.force_positioning
        assert "was_recovering" not in (await back(worker))["subscribe"]


# --- filters ------------------------------------------------------------------------------------


async def publish_tagged(worker: LocalWorker, *kinds: str) -> None:
    for number, kind in enumerate(kinds, 1):
        body = b'{"data":%d,"tags":{"kind":"%b"}}' % (number, kind.encode())
        await worker.node.commands.publish_from_server("a", body)


def filtered(**options: Any) -> LocalWorker:
    return LocalWorker(configured(options=replace(RECOVERABLE, allow_tags_filter=True, **options)))


async def test_a_filter_selects_live_and_recovered_publications():
    async with filtered().open() as worker:
        caller = await entered(worker)
        first = (await ask(caller, "subscribe", channel="a", tf=GOALS))["subscribe"]
        await publish_tagged(worker, "goal", "foul", "goal", "foul")
        await caller.until(lambda: caller.pubs() == [1, 3])
        again = (await back(worker, tf=GOALS, recover=True, epoch=first["epoch"]))["subscribe"]
        assert again["recovered"] is True
        assert [one["offset"] for one in again["publications"]] == [1, 3]
        none = await back(worker, tf=GOALS, recover=True, offset=3, epoch=first["epoch"])
        assert none["subscribe"]["recovered"] is True
        assert "publications" not in none["subscribe"]


async def test_a_filtered_cache_recovers_the_newest_that_passes():
    async with filtered(force_recovery_mode="cache").open() as worker:
        await publish_tagged(worker, "goal", "goal", "foul")
        result = (await back(worker, tf=GOALS, recover=True))["subscribe"]
        assert [one["offset"] for one in result["publications"]] == [2]
        other = (await back(worker, tf=GOALS | {"val": "none"}, recover=True))["subscribe"]
        assert (other["recovered"], "publications" in other) == (True, False)


@pytest.mark.parametrize(
    ("options", "node", "code"),
    [
        (RECOVERABLE, GOALS, 107),
        (replace(RECOVERABLE, allow_tags_filter=True), {"cmp": "like"}, 107),
        (replace(RECOVERABLE, allow_tags_filter=True), "text", 107),
        (replace(RECOVERABLE, allow_tags_filter=True), GOALS | {"val": "x" * 9000}, 107),
        (RECOVERABLE, None, 0),
    ],
)
async def test_a_filter_that_is_not_allowed_or_wrong_is_107(
    options: ChannelOptions, node: Any, code: int
):
    async with LocalWorker(configured(options=options)).open() as worker:
        answer = await back(worker, tf=node)
        assert answer.get("error", {}).get("code", 0) == code
        assert worker.node.hub.channels.keys() == (set() if code else {"a"})


# --- §2.8 ---------------------------------------------------------------------------------------


async def pages(caller: Caller, **params: Any) -> Any:
    answer = await ask(caller, "history", channel="a", **params)
    if "error" in answer:
        return answer["error"]["code"]
    history = answer["history"]
    assert (history["offset"], bool(history["epoch"])) == (15, True)
    return [one["offset"] for one in history["publications"]]


async def test_history_is_paged_as_the_table_of_the_protocol_says():
    config = configured(options=RECOVERABLE, history_max_publication_limit=7)
    async with LocalWorker(config).open() as worker:
        caller = await entered(worker)
        # The stream keeps ten: 6 to 15.
        await published(caller, 15)
        epoch = (await ask(caller, "history", channel="a"))["history"]["epoch"]

        def since(offset: int, of: str = epoch) -> dict[str, Any]:
            return {"offset": offset, "epoch": of}

        rows: list[tuple[dict[str, Any], Any]] = [
            ({}, []),
            ({"limit": 0}, []),
            ({"limit": 0, "since": since(8)}, []),
            ({"limit": -1}, [6, 7, 8, 9, 10, 11, 12]),
            ({"limit": -1, "reverse": True}, [15, 14, 13, 12, 11, 10, 9]),
            ({"limit": 300}, [6, 7, 8, 9, 10, 11, 12]),
            ({"limit": 3}, [6, 7, 8]),
            ({"limit": 3, "reverse": True}, [15, 14, 13]),
            ({"limit": 3, "since": since(9)}, [10, 11, 12]),
            ({"limit": 3, "since": since(13)}, [14, 15]),
            ({"limit": 3, "since": since(15)}, []),
            ({"limit": 3, "since": since(99)}, []),
            ({"limit": 3, "since": since(0)}, [6, 7, 8]),
            ({"limit": 3, "since": since(2)}, [6, 7, 8]),
            ({"limit": 3, "since": since(9), "reverse": True}, [8, 7, 6]),
            ({"limit": 3, "since": since(8), "reverse": True}, [7, 6]),
            ({"limit": 3, "since": since(16), "reverse": True}, [15, 14, 13]),
            ({"limit": 3, "since": since(6), "reverse": True}, []),
            ({"limit": 3, "since": since(2), "reverse": True}, []),
            ({"limit": 3, "since": since(0), "reverse": True}, 107),
            ({"limit": 3, "since": {}, "reverse": True}, 107),
            ({"limit": 3, "since": since(9, "")}, [10, 11, 12]),
            ({"limit": 3, "since": since(9, "other")}, 112),
            ({"limit": 3, "since": since(9, "other"), "reverse": True}, 112),
            ({"limit": 0, "since": since(9, "other")}, 112),
        ]
        found = [(params, await pages(caller, **params)) for params, _ in rows]
        assert found == rows
