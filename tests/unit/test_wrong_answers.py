"""An answer of a handler that cannot be used is the handler's failure, and nothing is left of its client."""

from __future__ import annotations

import math
import time
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

import cluster
from cluster import expiry_clock
from cluster.auth import ServerSubscription
from cluster.node import live_subscriptions, recovery, subscribe
from cluster.node.node import Node
from cluster.websocket.client import WebSocketClient
from tests.harness.waiting import until
from tests.unit.local_worker import RECOVERABLE, Caller, LocalWorker, ask, configured, published

WITHIN = 10.0
NO_TIMES: Final = ["2030-01-01", math.nan, math.inf, -math.inf, True, [1], b"1"]


class Users:
    """Counts the connections of users, as `client.user_connection_limit` has it."""

    is_on = True

    def __init__(self) -> None:
        self.entered: set[str] = set()

    async def enter(self, user: str, connection: str) -> bool:
        self.entered.add(connection)
        return True

    def leave(self, user: str, connection: str) -> None:
        self.entered.discard(connection)


def application(**handlers: Any) -> cluster.Application:
    app = cluster.Application()
    app.connecting(lambda event: cluster.ConnectAnswer(user="ann"))
    for kind, answer in handlers.items():
        app.handlers[kind] = answer if callable(answer) else lambda *_, answer=answer: answer
    return app


def worker_of(**handlers: Any) -> tuple[LocalWorker, Users]:
    config = configured(options=RECOVERABLE, expired_close_delay=0.0, expired_sub_close_delay=0.0)
    worker, users = LocalWorker(config, application=application(**handlers)), Users()
    worker.node._users = users
    return worker, users


def vanish(caller: Caller) -> None:
    transport = caller.wire.transport
    assert transport is not None
    transport.abort()


def nothing_is_left(worker: LocalWorker, users: Users) -> bool:
    """Whether no session, no place of a user and no subscription is left."""
    left = (worker.sessions.held, worker.node.hub.channels, worker.broker.wanted, users.entered)
    return not any(left)


async def left_by_all(worker: LocalWorker, users: Users) -> None:
    await until(lambda: not worker.server.clients, WITHIN, "all clients have gone")
    await until(lambda: nothing_is_left(worker, users), WITHIN, "nothing is left of them")


def is_the_handlers_failure(worker: LocalWorker, logged: list[Any], what: str) -> bool:
    """Whether one failure of a handler was counted and logged, with what is allowed, and no other."""
    [failed] = [line for line in logged if line["log_level"] in {"error", "critical"}]
    assert failed["event"] == "handler_failed"
    assert what in str(failed["exc_info"])
    errors = worker.counters.errors
    return (errors["handler"], errors["internal"]) == (1, 0)


# --- connect -------------------------------------------------------------------------------

CONNECTS: Final = [
    *[({"expires_at": one}, "ConnectAnswer.expires_at must be") for one in NO_TIMES],
    ({"channels": [1]}, "ConnectAnswer.channels must be text"),
    ({"channels": [None]}, "ConnectAnswer.channels must be text"),
    ({"channels": "ab"}, "ConnectAnswer.channels must be"),
    ({"channels": 1}, "ConnectAnswer.channels must be"),
    ({"channels": ["cut \ud83d"]}, "surrogates"),
    ({"subs": {1: ServerSubscription()}}, "ConnectAnswer.subs must be"),
    ({"subs": {"a": {}}}, "ConnectAnswer.subs must be"),
    ({"subs": {"cut \ud83d": ServerSubscription()}}, "surrogates"),
    ({"subs": ["a"]}, "ConnectAnswer.subs must be"),
    ({"subs": {"a": ServerSubscription(override={})}}, "override must be"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("answer", "what"), CONNECTS)
async def test_a_connect_with_an_answer_of_a_wrong_type_fails_and_leaves_nothing(
    answer: dict[str, Any], what: str
):
    worker, users = worker_of(connecting=cluster.ConnectAnswer(user="ann", **answer))
    async with worker.open():
        caller = await worker.caller()
        with capture_logs() as logged:
            caller.say({"id": 1, "connect": {}})
            assert (await caller.reply(1))["error"]["code"] == 100
        assert is_the_handlers_failure(worker, logged, what)
        vanish(caller)
        await left_by_all(worker, users)


async def test_an_expiry_may_be_a_finite_number_with_a_fraction():
    ends = time.time() + 600.5
    worker, users = worker_of(
        connecting=cluster.ConnectAnswer(user="ann", expires_at=ends),  # type: ignore[arg-type]
        subscribing=cluster.SubscribeAnswer(expires_at=ends),  # type: ignore[arg-type]
    )
    async with worker.open():
        caller = await worker.caller()
        assert (await caller.connect())["ttl"] in (599, 600)
        assert "subscribe" in await ask(caller, "subscribe", channel="a")
        [client] = worker.server.clients
        assert client.connection.expires_at == int(ends)
        details = client.connection.channels["a"].details
        assert details is not None
        assert details.expires_at == int(ends)
        vanish(caller)
        await left_by_all(worker, users)


@pytest.mark.parametrize("expires_at", [0.5, 1e-9, 10**400, -0.5])
async def test_a_fraction_of_a_second_is_not_never_and_a_huge_time_is_a_time(expires_at: Any):
    worker, _ = worker_of(connecting=cluster.ConnectAnswer(user="ann", expires_at=expires_at))
    async with worker.open():
        caller = await worker.caller()
        assert "ttl" in await caller.connect()


def fails(*_: Any, **__: Any) -> Any:
    raise ValueError("what nobody has thought of")


@pytest.mark.parametrize("channels", [[], ["news", "$private"]])
async def test_a_connect_that_fails_after_its_session_is_attached_leaves_nothing(
    channels: list[str], monkeypatch: pytest.MonkeyPatch
):
    worker, users = worker_of(connecting=cluster.ConnectAnswer(user="ann", channels=channels))
    async with worker.open():
        monkeypatch.setattr(Node, "_connect_result", fails)
        callers = [await worker.caller() for _ in range(5)]
        for caller in callers:
            caller.say({"id": 1, "connect": {}})
            assert (await caller.reply(1))["error"]["code"] == 100
        assert nothing_is_left(worker, users)
        worker.counters.errors["internal"] = 0


async def test_a_connect_whose_reply_cannot_be_encoded_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
):
    worker, users = worker_of(connecting=cluster.ConnectAnswer(user="ann", channels=["news"]))
    async with worker.open():
        monkeypatch.setattr(WebSocketClient, "_frame", fails)
        caller = await worker.caller()
        caller.say({"id": 1, "connect": {}})
        assert (await caller.closed())[0] == 3004
        await left_by_all(worker, users)
        worker.counters.errors["internal"] = 0


# --- subscribe -----------------------------------------------------------------------------

SUBSCRIBES: Final = [
    *[({"expires_at": one}, "SubscribeAnswer.expires_at must be") for one in NO_TIMES],
    ({"expires_at": None}, "SubscribeAnswer.expires_at must be"),
    ({"override": {"presence": True}}, "SubscribeAnswer.override must be"),
]


async def gone(worker: LocalWorker, users: Users, caller: Caller) -> None:
    """What is left while a client is connected is its own; when it goes, nothing."""
    assert (worker.node.hub.channels, worker.broker.wanted) == ({}, {})
    vanish(caller)
    await left_by_all(worker, users)


@pytest.mark.parametrize(("answer", "what"), SUBSCRIBES)
async def test_a_subscribe_with_an_answer_of_a_wrong_type_fails_and_leaves_nothing(
    answer: dict[str, Any], what: str
):
    worker, users = worker_of(subscribing=cluster.SubscribeAnswer(**answer))
    async with worker.open():
        caller = await worker.caller()
        await caller.connect()
        with capture_logs() as logged:
            assert (await ask(caller, "subscribe", channel="a"))["error"]["code"] == 100
        assert is_the_handlers_failure(worker, logged, what)
        await gone(worker, users, caller)


@pytest.mark.parametrize("channel", ["new", "served"])
async def test_a_subscribe_that_fails_after_its_join_was_begun_leaves_nothing(
    channel: str, monkeypatch: pytest.MonkeyPatch
):
    worker, users = worker_of(subscribing=True)
    async with worker.open():
        caller = await worker.caller()
        await caller.connect()
        await ask(caller, "subscribe", channel="served")
        monkeypatch.setattr(subscribe, "add_token", fails)
        other = await worker.caller()
        await other.connect()
        for _ in range(5):
            assert (await ask(other, "subscribe", channel=channel))["error"]["code"] == 100
        vanish(caller)
        await until(lambda: len(worker.server.clients) == 1, WITHIN, "the subscriber has gone")
        await gone(worker, users, other)
        worker.counters.errors["internal"] = 0


async def test_a_recovery_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch):
    worker, users = worker_of(subscribing=True)
    async with worker.open():
        caller = await worker.caller()
        await caller.connect()
        await published(caller, 3)
        monkeypatch.setattr(recovery, "from_stream", fails)
        params = {"channel": "a", "recover": True, "offset": 1, "epoch": "any"}
        assert (await ask(caller, "subscribe", **params))["error"]["code"] == 100
        await gone(worker, users, caller)
        worker.counters.errors["internal"] = 0


async def test_a_channel_of_a_session_that_cannot_be_told_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
):
    worker, users = worker_of()
    async with worker.open():
        caller = await worker.caller()
        await caller.connect()
        [client] = worker.server.clients
        assert client.session is not None
        session = client.session
        monkeypatch.setattr(WebSocketClient, "_frame", fails)
        session.channels = ("news",)
        with pytest.raises(ValueError, match="nobody"):
            await live_subscriptions.add_server_side(
                worker.node.subscriptions, worker.node.channels, client, "news"
            )
        monkeypatch.undo()
        vanish(caller)
        await left_by_all(worker, users)


# --- refresh -------------------------------------------------------------------------------


@pytest.mark.parametrize("expires_at", [*NO_TIMES, None])
async def test_a_refresh_with_an_answer_of_a_wrong_type_is_the_handlers_failure(expires_at: Any):
    worker, users = worker_of(refreshing=cluster.RefreshAnswer(expires_at))
    async with worker.open():
        caller = await worker.caller()
        await caller.connect()
        with capture_logs() as logged:
            assert (await ask(caller, "refresh", token="any"))["error"]["code"] == 100
        assert is_the_handlers_failure(worker, logged, "RefreshAnswer.expires_at must be")
        await gone(worker, users, caller)


@pytest.mark.parametrize("expires_at", [math.nan, math.inf, "2030-01-01"])
async def test_a_server_that_refreshes_with_no_time_ends_the_connection_and_asks_no_more(
    expires_at: Any, monkeypatch: pytest.MonkeyPatch
):
    soon = int(expiry_clock.now()) + 1
    worker, users = worker_of(
        connecting=cluster.ConnectAnswer(user="ann", expires_at=soon, refreshed_by_server=True),
        refreshing=cluster.RefreshAnswer(expires_at),
    )
    looks = 0
    expire = WebSocketClient._expire

    def counted(client: WebSocketClient) -> None:
        nonlocal looks
        looks += 1
        expire(client)

    monkeypatch.setattr(WebSocketClient, "_expire", counted)
    async with worker.open():
        caller = await worker.caller()
        await caller.connect()
        assert await caller.closed() == (3005, "connection expired")
        await left_by_all(worker, users)
        assert looks < 10
        assert worker.counters.errors["handler"] >= 1
