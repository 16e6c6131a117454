"""What a worker's clients can do over a socket: positions, recovery, histories, permissions, sessions."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from cluster.config import ChannelConfig, ChannelOptions, ClientConfig, Config, Namespace
from cluster.errors import METHOD_NOT_FOUND
from tests.harness.waiting import until
from tests.unit.local_worker import (
    RECOVERABLE,
    LocalWorker,
    ask,
    changed,
    configured,
    entered,
    published,
)

# --- positions and recovery ------------------------------------------------------------------


async def test_a_subscription_starts_at_the_top_of_its_stream():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await entered(worker)
        await published(caller, 3)
        result = (await ask(caller, "subscribe", channel="a"))["subscribe"]
        epoch = worker.store.streams["a"].epoch
        assert result == {"recoverable": True, "positioned": True, "epoch": epoch, "offset": 3}
        await published(caller, 1, first=4)
        await caller.until(lambda: caller.pubs() == [4])


async def test_an_unused_channel_has_an_epoch_and_no_offset():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await entered(worker)
        result = (await ask(caller, "subscribe", channel="a"))["subscribe"]
        assert result["epoch"]
        assert "offset" not in result


async def test_a_client_gets_what_it_missed_and_its_own_offset_back():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await entered(worker)
        await published(caller, 5)
        epoch = worker.store.streams["a"].epoch
        result = (await ask(caller, "subscribe", channel="a", recover=True, offset=2, epoch=epoch))[
            "subscribe"
        ]
        assert (result["was_recovering"], result["recovered"], result["offset"]) == (True, True, 2)
        assert [(one["offset"], one["data"]) for one in result["publications"]] == [
            (3, 3), (4, 4), (5, 5),
        ]  # fmt: skip
        assert worker.counters.recoveries == {"recovered": 1, "unrecovered": 0}


async def test_a_client_that_missed_nothing_has_recovered():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await entered(worker)
        await published(caller, 2)
        epoch = worker.store.streams["a"].epoch
        result = (await ask(caller, "subscribe", channel="a", recover=True, offset=2, epoch=epoch))[
            "subscribe"
        ]
        assert result["recovered"] is True
        assert "publications" not in result


@pytest.mark.parametrize(
    ("offset", "epoch"),
    [(1, None), (99, None), (15, "other"), (0, "_")],
    ids=["trimmed", "beyond the top", "another epoch", "the sentinel"],
)
async def test_a_position_that_was_lost_is_unrecovered_and_starts_at_the_top(
    offset: int, epoch: str | None
):
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await entered(worker)
        await published(caller, 15)
        known = epoch or worker.store.streams["a"].epoch
        result = (
            await ask(caller, "subscribe", channel="a", recover=True, offset=offset, epoch=known)
        )["subscribe"]
        assert result["was_recovering"] is True
        assert result["offset"] == 15
        assert "recovered" not in result
        assert "publications" not in result


async def test_more_than_the_limit_is_not_recovered():
    config = configured(options=RECOVERABLE, recovery_max_publication_limit=3)
    async with LocalWorker(config).open() as worker:
        caller = await entered(worker)
        await published(caller, 5)
        epoch = worker.store.streams["a"].epoch
        four = await ask(caller, "subscribe", channel="a", recover=True, offset=1, epoch=epoch)
        assert "recovered" not in four["subscribe"]
        await ask(caller, "unsubscribe", channel="a")
        three = await ask(caller, "subscribe", channel="a", recover=True, offset=2, epoch=epoch)
        assert len(three["subscribe"]["publications"]) == 3


async def test_a_client_that_asks_for_a_lost_position_gets_error_112():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await entered(worker)
        await published(caller, 2)
        request = {"channel": "a", "recover": True, "offset": 9, "epoch": "e", "flag": 2}
        assert (await ask(caller, "subscribe", **request))["error"]["code"] == 112
        assert worker.node.hub.channels == {}
        assert "subscribe" in await ask(caller, "subscribe", channel="a")


async def test_in_insecure_mode_a_client_may_ask_for_positions_and_recovery():
    async with LocalWorker(configured()).open() as worker:
        caller = await entered(worker)
        plain = (await ask(caller, "subscribe", channel="a"))["subscribe"]
        positioned = (await ask(caller, "subscribe", channel="b", positioned=True))["subscribe"]
        both = (await ask(caller, "subscribe", channel="c", recoverable=True))["subscribe"]
        assert plain == {}
        assert set(positioned) == {"positioned", "epoch"}
        assert set(both) == {"positioned", "recoverable", "epoch"}


async def test_without_history_nothing_is_positioned():
    async with LocalWorker(
        configured(options=ChannelOptions(force_recovery=True))
    ).open() as worker:
        caller = await entered(worker)
        result = (await ask(caller, "subscribe", channel="a", recoverable=True))["subscribe"]
        assert result == {}
        await published(caller, 1)
        await caller.until(lambda: caller.pubs() == [1])
        assert (await ask(caller, "history", channel="a", limit=1))["error"]["code"] == 108


# --- gaps ------------------------------------------------------------------------------------


async def test_what_the_subscription_lost_is_filled_from_the_stream():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="a")
        policy = worker.node.channels._permissions.history("a")
        for number in (1, 2):
            worker.store.append("a", b'{"data":%d}' % number, policy, 0)
        await published(caller, 1, first=3)
        await caller.until(lambda: caller.pubs() == [1, 2, 3])


async def test_what_the_stream_lost_too_is_reported_and_the_client_may_resubscribe():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="a")
        policy = worker.node.channels._permissions.history("a")
        for number in range(1, 20):
            worker.store.append("a", b'{"data":%d}' % number, policy, 0)
        await published(caller, 1, first=20)
        await caller.until(lambda: "2500" in str(caller.heard))
        assert caller.pubs() == []
        assert "subscribe" in await ask(caller, "subscribe", channel="a")
        assert worker.counters.dropped["broker"] == 1


async def test_a_lost_last_publication_is_found_by_the_position_check():
    config = configured(options=RECOVERABLE, channel_position_check_delay=0.2)
    async with LocalWorker(config).open() as worker:
        checks = asyncio.ensure_future(worker.node.channels.check_positions())
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="a")
        worker.store.append("a", b'{"data":1}', worker.node.channels._permissions.history("a"), 0)
        await caller.until(lambda: caller.pubs() == [1])
        checks.cancel()


async def test_a_resumed_subscription_is_filled_even_if_the_store_stays_away_for_a_while():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="a")
        policy = worker.node.channels._permissions.history("a")
        worker.store.append("a", b'{"data":1}', policy, 0)
        worker.store.is_up = False
        worker.node.channels.resumed("a")
        await until(lambda: worker.store.refused >= 2, 10, "the node asks the store again")
        worker.store.append("a", b'{"data":2}', policy, 0)
        worker.store.is_up = True
        await caller.until(lambda: caller.pubs() == [1, 2])


async def test_a_channel_that_comes_back_during_the_fill_of_its_forerunner_is_filled_too():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await entered(worker)
        policy = worker.node.channels._permissions.history("a")
        await ask(caller, "subscribe", channel="a")
        worker.store.is_up = False
        worker.node.channels.resumed("a")
        await ask(caller, "unsubscribe", channel="a")
        worker.store.is_up = True
        await ask(caller, "subscribe", channel="a")
        worker.store.append("a", b'{"data":1}', policy, 0)
        worker.node.channels.resumed("a")
        await caller.until(lambda: caller.pubs() == [1])


# --- histories -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ({}, []),
        ({"limit": -1}, [1, 2, 3, 4]),
        ({"limit": 2}, [1, 2]),
        ({"limit": 2, "reverse": True}, [4, 3]),
        ({"limit": -1, "since": {"offset": 2}}, [3, 4]),
        ({"limit": -1, "since": {"offset": 3}, "reverse": True}, [2, 1]),
        ({"limit": 1000}, [1, 2, 3, 4]),
    ],
    ids=str,
)
async def test_a_history_is_read_as_asked(question: dict[str, Any], wanted: list[int]):
    config = configured(options=RECOVERABLE, history_max_publication_limit=4)
    async with LocalWorker(config).open() as worker:
        caller = await entered(worker)
        await published(caller, 4)
        result = (await ask(caller, "history", channel="a", **question))["history"]
        assert [one["data"] for one in result["publications"]] == wanted
        assert (result["offset"], result["epoch"]) == (4, worker.store.streams["a"].epoch)


async def test_a_history_is_cut_at_the_limit_and_knows_its_epoch():
    config = configured(options=RECOVERABLE, history_max_publication_limit=2)
    async with LocalWorker(config).open() as worker:
        caller = await entered(worker)
        await published(caller, 4)
        whole = (await ask(caller, "history", channel="a", limit=-1))["history"]
        assert len(whole["publications"]) == 2
        since = {"offset": 1, "epoch": "another"}
        assert (await ask(caller, "history", channel="a", since=since))["error"]["code"] == 112
        assert (await ask(caller, "history", channel="a", since={}, reverse=True))["error"][
            "code"
        ] == 107


# --- rules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["subscribe", "publish", "history"])
@pytest.mark.parametrize(
    ("channel", "code"),
    [("nowhere:a", 102), ("x" * 256, 107), ("é", 107), (":a", 102)],
)
async def test_a_channel_must_be_known_short_and_ascii(method: str, channel: str, code: int):
    async with LocalWorker(configured()).open() as worker:
        caller = await entered(worker)
        reply = await ask(caller, method, channel=channel, data=1)
        assert reply["error"]["code"] == code
        assert worker.node.hub.channels == {}


async def test_a_private_channel_is_subscribed_to_with_a_token_only_also_in_insecure_mode():
    async with LocalWorker(configured()).open() as worker:
        caller = await entered(worker)
        assert (await ask(caller, "subscribe", channel="$private"))["error"]["code"] == 103
        assert worker.node.hub.channels == {}
        # Section 9.3: the gate is one of subscribing.
        assert "publish" in await ask(caller, "publish", channel="$private", data=1)
        assert worker.counters.permission_refusals["subscribe"] == 1


async def test_a_namespace_has_its_own_options():
    config = changed(
        configured(options=ChannelOptions()),
        channel=ChannelConfig(namespaces=(Namespace("news", RECOVERABLE),)),
    )
    async with LocalWorker(config).open() as worker:
        caller = await entered(worker)
        assert (await ask(caller, "subscribe", channel="news:a"))["subscribe"]["recoverable"]
        assert (await ask(caller, "subscribe", channel="other"))["subscribe"] == {}


async def test_without_insecure_mode_a_connect_needs_a_token():
    async with LocalWorker(Config(client=ClientConfig())).open() as worker:
        caller = await worker.caller()
        caller.say({"id": 1, "connect": {}})
        assert await caller.closed() == (3501, "bad request")


async def test_a_client_without_a_token_is_anonymous_where_that_is_allowed():
    """It has a session as every client has, may do what anonymous users may, and refreshes nothing."""
    open_to_all = ClientConfig(allow_anonymous_connect_without_token=True)
    async with LocalWorker(Config(client=open_to_all)).open() as worker:
        one, two = await worker.caller(), await worker.caller()
        session = (await one.connect())["data"]["session"]["id"]
        result = await two.connect()
        assert not {"expires", "ttl"} & set(result)
        assert len(worker.node.clients.of("")) == 2
        assert (await ask(two, "publish", channel="a", data=1))["error"]["code"] == 103
        three = await worker.caller()
        resumed = (await three.connect(data={"session": session}))["data"]["session"]
        assert (resumed["id"], resumed["resumed"]) == (session, True)
        for number, token in enumerate(("", "a.b.c")):
            caller = two if number else three
            caller.say({"id": 9, "refresh": {"token": token}})
            assert await caller.closed() == (3501, "bad request")


# --- rpc -------------------------------------------------------------------------------------------


def _double(user: str, data: bytes) -> Any:
    return orjson.loads(data) * 2


def _fail(user: str, data: bytes) -> Any:
    raise ZeroDivisionError


def _refuse(user: str, data: bytes) -> Any:
    raise METHOD_NOT_FOUND


def _awaited(handler):
    async def call(user: str, data: bytes) -> Any:
        return handler(user, data)

    return call


@pytest.mark.parametrize("kind", [lambda handler: handler, _awaited], ids=["at once", "awaited"])
async def test_a_call_is_answered_by_its_handler_or_says_why_not(kind):
    handlers = {"double": kind(_double), "fail": kind(_fail), "refuse": kind(_refuse)}
    async with LocalWorker(configured(), rpc_handlers=handlers).open() as worker:
        caller = await entered(worker)
        assert (await ask(caller, "rpc", method="double", data=4))["rpc"] == {"data": 8}
        assert (await ask(caller, "rpc", method="fail"))["error"]["code"] == 100
        assert (await ask(caller, "rpc", method="refuse"))["error"]["code"] == 104
        assert (await ask(caller, "rpc", method="unknown"))["error"]["code"] == 104
        assert (await ask(caller, "rpc"))["error"]["code"] == 104
        assert worker.counters.errors["handler"] == 1
        assert sum(worker.counters.command_duration["rpc"].counts) == 5


async def test_without_any_handler_calls_are_not_available():
    async with LocalWorker(configured()).open() as worker:
        caller = await entered(worker)
        assert (await ask(caller, "rpc", method="x"))["error"]["code"] == 108


# --- sessions --------------------------------------------------------------------------------------


async def test_a_change_of_a_session_is_pushed_to_all_its_connections_on_all_workers():
    async with (
        LocalWorker(configured()).open() as one,
        LocalWorker(configured(), store=one.store).open() as two,
    ):
        here = await one.caller()
        session = (await here.connect())["data"]["session"]["id"]
        there = await entered(two, data={"session": session})
        await one.sessions.update(session, state={"n": 1})
        wanted = {"push": {"message": {"data": {"session": {"state": {"n": 1}, "version": 1}}}}}
        for caller in (here, there):
            await caller.until(lambda caller=caller: wanted in caller.heard)  # type: ignore[misc]


async def test_the_channels_of_a_session_are_subscribed_and_left_live():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await worker.caller()
        session = (await caller.connect())["data"]["session"]["id"]
        await worker.sessions.update(session, channels=("s", "t"))
        await caller.until(lambda: sum("'subscribe'" in str(one) for one in caller.heard) == 2)
        await published(caller, 1, channel="s")
        await caller.until(lambda: caller.pubs() == [1])
        await worker.sessions.update(session, channels=("t",))
        await caller.until(lambda: "2000" in str(caller.heard))
        assert set(worker.node.hub.channels) == {"t"}


async def test_the_channels_of_a_session_are_recovered_when_it_is_resumed():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        first = await worker.caller()
        session = (await first.connect())["data"]["session"]["id"]
        await worker.sessions.update(session, channels=("s",))
        await published(first, 1, channel="s")
        epoch = worker.store.streams["s"].epoch
        first.wire.close()
        speaker = await entered(worker)
        await published(speaker, 2, first=2, channel="s")
        again = await worker.caller()
        subs = {"s": {"recover": True, "offset": 1, "epoch": epoch}}
        result = (await again.connect(data={"session": session}, subs=subs))["subs"]["s"]
        assert (result["recovered"], result["offset"]) == (True, 1)
        assert [one["data"] for one in result["publications"]] == [2, 3]
        await published(speaker, 1, first=4, channel="s")
        await again.until(lambda: again.pubs() == [4])


async def test_channels_that_change_again_and_again_end_as_the_session_says():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await worker.caller()
        session = (await caller.connect())["data"]["session"]["id"]
        wishes = [("a",), (), ("a", "b"), ("b",), (), ("a",)] * 3
        await asyncio.gather(*(worker.sessions.update(session, channels=one) for one in wishes))
        [client] = worker.server.clients
        await until(
            lambda: set(client.connection.channels) == set(worker.node.hub.channels) == {"a"},
            10,
            "only channel a is subscribed to",
        )
        assert worker.node.hub.subscriptions == 1


def is_subscribed_by_all(worker: LocalWorker, channel: str) -> bool:
    hub = worker.node.hub
    return set(hub.channels) == {channel} and hub.subscriptions == len(worker.server.clients)


async def test_a_change_while_a_client_connects_is_not_missed():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        first = await worker.caller()
        session = (await first.connect())["data"]["session"]["id"]
        for number in range(20):
            caller = await worker.caller()
            caller.say({"id": 1, "connect": {"data": {"session": session}}})
            update = worker.sessions.update(session, channels=(f"c{number}",))
            await asyncio.gather(update, caller.reply(1))
            await until(lambda: is_subscribed_by_all(worker, f"c{number}"), 10, "the new channel")  # noqa: B023
