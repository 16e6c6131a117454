"""Applications: what their handlers decide, what reaches the client, and what their failures cost."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

import cluster
from cluster.errors import ClientError
from tests.harness.waiting import until
from tests.unit.local_worker import (
    LocalWorker,
    ask,
    configured,
    entered,
)

WITHIN = 10.0


# --- connecting ------------------------------------------------------------------------------


async def test_an_application_knows_a_client_without_a_token_by_its_data():
    app = cluster.Application()

    @app.connecting
    async def connecting(event: cluster.Connecting) -> cluster.ConnectAnswer | None:
        if event.data != {"password": "x"}:
            return None
        return cluster.ConnectAnswer(user="42", info={"name": "Ann"}, data={"hello": [1]})

    async with LocalWorker(configured(insecure=False), application=app).open() as worker:
        caller = await worker.caller()
        result = await caller.connect(data={"password": "x"})
        assert result["data"]["hello"] == [1]
        assert result["data"]["session"]["resumed"] is False
        [client] = app.clients()
        assert (client.user, client.info, client.is_connected) == ("42", {"name": "Ann"}, True)

        refused = await worker.caller()
        refused.say({"id": 1, "connect": {"data": {}}})
        assert (await refused.closed())[0] == 3501


async def test_an_application_decides_before_a_client_without_a_token_is_anonymous():
    app = cluster.Application()
    users: list[str | None] = []

    @app.connecting
    def connecting(event: cluster.Connecting) -> cluster.ConnectAnswer | None:
        users.append(event.user)
        if event.data == "no":
            raise cluster.ApplicationDisconnect(4001, "no")
        return cluster.ConnectAnswer(user="42") if event.data == "yes" else None

    config = configured(insecure=False, allow_anonymous_connect_without_token=True)
    async with LocalWorker(config, application=app).open() as worker:
        for data in ("yes", ""):
            await (await worker.caller()).connect(data=data)
        assert sorted(client.user for client in app.clients()) == ["", "42"]
        refused = await worker.caller()
        refused.say({"id": 1, "connect": {"data": "no"}})
        assert (await refused.closed())[0] == 4001
        forged = await worker.caller()
        forged.say({"id": 1, "connect": {"token": "no.token.here"}})
        assert (await forged.closed())[0] == 3500
    assert users == [None, None, None]


async def test_a_token_that_is_refused_does_not_reach_the_application():
    app = cluster.Application()
    events: list[cluster.Connecting] = []
    app.connecting(events.append)
    config = configured(insecure=False)
    async with LocalWorker(config, application=app).open() as worker:
        caller = await worker.caller()
        caller.say({"id": 1, "connect": {"token": "no.token.here"}})
        assert (await caller.closed())[0] == 3500
    assert events == []


async def test_none_leaves_a_connect_to_the_token():
    app = cluster.Application()
    events: list[cluster.Connecting] = []
    app.connecting(events.append)
    async with LocalWorker(configured(), application=app).open() as worker:
        caller = await worker.caller()
        await caller.connect(name="js", data=[1])
    assert [(one.user, one.info, one.name, one.data) for one in events] == [("", None, "js", [1])]


async def test_an_expiry_of_the_application_is_in_the_reply_and_a_refresh_extends_it():
    app = cluster.Application()
    tokens: list[tuple[str, int | None]] = []

    @app.connecting
    def connecting(event: cluster.Connecting) -> cluster.ConnectAnswer:
        return cluster.ConnectAnswer(user="42", expires_at=int(time.time()) + 1000)

    @app.refreshing
    def refreshing(
        client: cluster.ApplicationClient, event: cluster.Refreshing
    ) -> cluster.RefreshAnswer | None:
        tokens.append((event.token, event.expires_at))
        if event.token == "no":
            return None
        return cluster.RefreshAnswer(int(time.time()) + 2000)

    async with LocalWorker(configured(insecure=False), application=app).open() as worker:
        caller = await worker.caller()
        result = await caller.connect()
        assert result["expires"] is True
        assert 900 < result["ttl"] <= 1000
        assert 1900 < (await ask(caller, "refresh", token="mine"))["refresh"]["ttl"] <= 2000
        caller.say({"id": 9, "refresh": {"token": "no"}})
        assert (await caller.closed())[0] == 3500
    assert tokens == [("mine", None), ("no", None)]


async def test_a_refresh_shows_the_info_that_the_handler_gives_and_none_keeps_it():
    app = cluster.Application()
    infos: list[Any] = [{"name": "new"}, None]

    @app.connecting
    def connecting(event: cluster.Connecting) -> cluster.ConnectAnswer:
        return cluster.ConnectAnswer(
            user="42", info={"name": "old"}, expires_at=int(time.time()) + 3600
        )

    @app.refreshing
    def refreshing(
        client: cluster.ApplicationClient, event: cluster.Refreshing
    ) -> cluster.RefreshAnswer:
        return cluster.RefreshAnswer(int(time.time()) + 3600, infos.pop(0))

    @app.rpc("who")
    async def who(client: cluster.ApplicationClient, data: Any) -> Any:
        return client.info

    async with LocalWorker(configured(insecure=False), application=app).open() as worker:
        caller = await worker.caller()
        await caller.connect()
        shown = []
        for _ in range(2):
            await ask(caller, "refresh", token="mine")
            shown.append((await ask(caller, "rpc", method="who", data={}))["rpc"]["data"])
    assert shown == [{"name": "new"}, {"name": "new"}]


# --- errors and disconnects -------------------------------------------------------------------


async def test_errors_and_disconnects_of_the_application_reach_the_client_with_their_codes():
    app = cluster.Application()

    @app.rpc("refuse")
    async def refuse(client: cluster.ApplicationClient, data: Any) -> None:
        raise cluster.ApplicationError(1999, "not today", temporary=True)

    @app.rpc("leave")
    def leave(client: cluster.ApplicationClient, data: Any) -> None:
        raise cluster.ApplicationDisconnect(4999, "go away")

    async with LocalWorker(configured(), application=app).open() as worker:
        caller = await entered(worker)
        error = (await ask(caller, "rpc", method="refuse"))["error"]
        assert error == {"code": 1999, "message": "not today", "temporary": True}
        caller.say({"id": 9, "rpc": {"method": "leave"}})
        assert await caller.closed() == (4999, "go away")
    assert worker.counters.errors["handler"] == 0


@pytest.mark.parametrize("code", [0, 100, 103, 399, 2000, 3501])
def test_another_error_code_is_a_programming_error_with_a_clear_text(code: int):
    with pytest.raises(ValueError, match=f"codes from 400 to 1999, not {code}"):
        cluster.ApplicationError(code, "x")


@pytest.mark.parametrize("code", [1000, 3000, 3501, 3999, 5000])
def test_another_close_code_is_a_programming_error_with_a_clear_text(code: int):
    with pytest.raises(ValueError, match=f"codes from 4000 to 4999, not {code}"):
        cluster.ApplicationDisconnect(code, "x")


@pytest.mark.parametrize("reason", ["", "{}", "17", "null", "x" * 124, "ä" * 62])
def test_a_reason_that_sdks_misread_or_that_is_too_long_is_refused(reason: str):
    with pytest.raises(ValueError, match="the reason of close code 4000"):
        cluster.ApplicationDisconnect(4000, reason)


async def test_a_wrong_code_and_any_other_failure_is_error_100_counted_and_logged_once():
    app = cluster.Application()

    @app.rpc("wrong")
    def wrong(client: cluster.ApplicationClient, data: Any) -> None:
        raise cluster.ApplicationError(7, "x")

    @app.rpc("other")
    async def other(client: cluster.ApplicationClient, data: Any) -> None:
        raise ClientError(102, "of the server")

    @app.rpc("object")
    async def odd(client: cluster.ApplicationClient, data: Any) -> object:
        return object()

    async with LocalWorker(configured(), application=app).open() as worker:
        caller = await entered(worker)
        with capture_logs() as logged:
            for method in ("wrong", "other", "object"):
                assert (await ask(caller, "rpc", method=method))["error"]["code"] == 100
    failures = [one for one in logged if one["event"] == "handler_failed"]
    assert [str(one["exc_info"]) for one in failures][:2] == [
        "an application's errors have codes from 400 to 1999, not 7",
        "102 of the server",
    ]
    assert len(failures) == 3
    assert worker.counters.errors["handler"] == 3
    assert worker.counters.handler_failures == {"exception": 3, "timeout": 0, "overload": 0}
    assert sum(worker.counters.handler_duration["rpc"].counts) == 3


# --- rpc and messages --------------------------------------------------------------------------


async def test_rpc_handlers_get_values_or_text_and_unknown_methods_are_104():
    app = cluster.Application()
    app.rpc("double")(lambda client, data: data * 2)
    app.rpc("raw", raw=True)(lambda client, data: data)

    async with LocalWorker(configured(), application=app).open() as worker:
        caller = await entered(worker)
        assert (await ask(caller, "rpc", method="double", data=[1]))["rpc"] == {"data": [1, 1]}
        caller.wire.send_text(b'{"id":50,"rpc":{"method":"raw","data":{"a":1.50,"a":1E400}}}')
        await caller.until(
            lambda: any(b'"data":{"a":1.50,"a":1E400}' in one for one in caller.lines)
        )
        assert (await ask(caller, "rpc", method="none"))["error"]["code"] == 104


async def test_messages_of_clients_are_taken_and_answered_with_messages():
    app = cluster.Application()

    @app.message
    async def message(client: cluster.ApplicationClient, data: Any) -> None:
        if data == "bye":
            raise cluster.ApplicationDisconnect(4100, "bye")
        client.send({"heard": data})

    async with LocalWorker(configured(), application=app).open() as worker:
        caller = await entered(worker)
        caller.say({"send": {"data": {"a": 1}}})
        await caller.until(
            lambda: {"push": {"message": {"data": {"heard": {"a": 1}}}}} in caller.heard
        )
        caller.say({"send": {"data": "bye"}})
        assert await caller.closed() == (4100, "bye")


async def test_what_a_client_has_sent_before_it_left_is_handled():
    app = cluster.Application()
    heard: list[Any] = []
    app.message(lambda client, data: heard.append(data))
    app.publishing(lambda client, event: True)
    worker = LocalWorker(configured(), application=app)
    async with worker.open():
        listener, caller = await entered(worker), await entered(worker)
        await ask(listener, "subscribe", channel="a")
        caller.say({"send": {"data": 1}}, {"id": 7, "publish": {"channel": "a", "data": 2}})
        caller.wire.send_text(b"no command")
        assert (await caller.closed())[0] == 3501
        await listener.until(lambda: listener.pubs() == [2])
        await until(lambda: heard == [1], WITHIN, "the message is handled")


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit])
async def test_a_handler_that_cancels_itself_or_exits_has_failed(error: type[BaseException]):
    app = cluster.Application()

    @app.rpc("end")
    async def end(client: cluster.ApplicationClient, data: Any) -> None:
        raise error

    async with LocalWorker(configured(), application=app).open() as worker:
        caller = await entered(worker)
        with capture_logs() as logged:
            assert (await ask(caller, "rpc", method="end"))["error"]["code"] == 100
    assert [one["reason"] for one in logged if one["event"] == "handler_failed"] == ["exception"]
    assert worker.counters.handler_failures["exception"] == 1


async def test_a_message_without_a_handler_closes_with_3508():
    app = cluster.Application()
    app.rpc("a")(lambda client, data: None)
    async with LocalWorker(configured(), application=app).open() as worker:
        caller = await entered(worker)
        caller.say({"send": {"data": 1}})
        assert (await caller.closed())[0] == 3508


# --- subscribing and publishing ----------------------------------------------------------------


async def test_a_subscribe_is_allowed_refused_or_left_to_the_options():
    app = cluster.Application()

    @app.subscribing
    async def subscribing(
        client: cluster.ApplicationClient, event: cluster.Subscribing
    ) -> cluster.SubscribeAnswer | bool | None:
        decisions: dict[str, cluster.SubscribeAnswer | bool] = {
            "yes": True,
            "no": False,
            "data": cluster.SubscribeAnswer({"n": 1}),
        }
        return decisions.get(event.channel)

    @app.connecting
    def connecting(event: cluster.Connecting) -> cluster.ConnectAnswer:
        return cluster.ConnectAnswer(user="42")

    async with LocalWorker(configured(insecure=False), application=app).open() as worker:
        caller = await entered(worker)
        assert "subscribe" in await ask(caller, "subscribe", channel="yes")
        assert (await ask(caller, "subscribe", channel="no"))["error"]["code"] == 103
        assert (await ask(caller, "subscribe", channel="data"))["subscribe"]["data"] == {"n": 1}
        assert (await ask(caller, "subscribe", channel="other"))["error"]["code"] == 103
        assert (await ask(caller, "subscribe", channel="$yes"))["error"]["code"] == 103
        await app.publish("yes", {"k": 1})
        await caller.until(lambda: caller.pubs() == [{"k": 1}])


async def test_what_a_client_sends_with_a_subscribe_reaches_the_application():
    app = cluster.Application()
    sent: list[Any] = []

    @app.subscribing
    def subscribing(client: cluster.ApplicationClient, event: cluster.Subscribing) -> bool:
        sent.append(event.data)
        return True

    async with LocalWorker(configured(), application=app).open() as worker:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="a", data={"room": 1.50})
        await ask(caller, "subscribe", channel="b", data=None)
        await ask(caller, "subscribe", channel="c")
        assert sent == [{"room": 1.5}, None, None]


async def test_a_publish_is_allowed_refused_or_changed_and_keeps_its_order():
    app = cluster.Application()

    @app.publishing
    async def publishing(
        client: cluster.ApplicationClient, event: cluster.Publishing
    ) -> cluster.PublishAnswer | bool:
        if event.data == "no":
            return False
        # The later ones are decided first.
        await asyncio.sleep(0.1 / event.data)
        return True if event.data % 2 else cluster.PublishAnswer({"changed": event.data})

    async with LocalWorker(configured(), application=app).open() as worker:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="a")
        values: list[Any] = [1, 2, "no", 3, 4, 5]
        caller.say(
            *({"id": 100 + n, "publish": {"channel": "a", "data": v}} for n, v in enumerate(values))
        )
        await caller.until(lambda: len(caller.pubs()) == 5)
        assert caller.pubs() == [1, {"changed": 2}, 3, {"changed": 4}, 5]
        assert (await caller.reply(102))["error"]["code"] == 103
        assert worker.node.application is not None
        assert worker.node.application._turns == {}
