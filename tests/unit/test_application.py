"""Applications: what their handlers decide, what reaches the client, and what their failures cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

import cluster
from cluster.config import AppConfig, ChannelOptions, Config
from cluster.errors import ClientError
from cluster.protocol import Position
from tests.harness.waiting import until
from tests.unit.local_worker import (
    HISTORY,
    Caller,
    LocalWorker,
    ask,
    changed,
    configured,
    entered,
)

WITHIN = 10.0


def limited(**app: Any) -> Config:
    return changed(configured(), app=AppConfig(**app))


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
        caller.say(
            {"send": {"data": 1}}, {"id": 7, "publish": {"channel": "a", "data": 2}}, {"id": 8}
        )
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
        assert (await ask(caller, "rpc", method="end"))["error"]["code"] == 100
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


# --- limits --------------------------------------------------------------------------------------


async def test_a_handler_that_takes_too_long_is_error_100_and_counted_as_such():
    app = cluster.Application()

    @app.rpc("slow")
    async def slow(client: cluster.ApplicationClient, data: Any) -> None:
        await asyncio.Event().wait()

    async with LocalWorker(limited(handler_timeout=0.05), application=app).open() as worker:
        caller = await entered(worker)
        assert (await ask(caller, "rpc", method="slow"))["error"]["code"] == 100
    assert worker.counters.handler_failures["timeout"] == 1
    assert worker.counters.errors["handler"] == 1


async def test_a_timeout_of_the_applications_own_is_its_exception():
    app = cluster.Application()

    @app.rpc("slow")
    async def slow(client: cluster.ApplicationClient, data: Any) -> None:
        raise TimeoutError

    async with LocalWorker(configured(), application=app).open() as worker:
        caller = await entered(worker)
        await ask(caller, "rpc", method="slow")
    assert worker.counters.handler_failures == {"exception": 1, "timeout": 0, "overload": 0}


async def test_so_many_handlers_run_so_many_wait_and_the_others_are_refused_at_once():
    app = cluster.Application()
    running, most, release = 0, 0, asyncio.Event()

    @app.rpc("wait")
    async def wait(client: cluster.ApplicationClient, data: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1

    async with LocalWorker(limited(handler_concurrency=2), application=app).open() as worker:
        caller = await entered(worker)
        caller.say(*({"id": 100 + n, "rpc": {"method": "wait"}} for n in range(12)))
        for number in (110, 111):
            error = (await caller.reply(number))["error"]
            assert (error["code"], error["temporary"]) == (100, True)
        release.set()
        for number in range(100, 110):
            assert "rpc" in await caller.reply(number)
    assert most == 2
    assert worker.counters.handler_failures["overload"] == 2


async def test_a_client_may_go_while_its_handler_runs():
    app = cluster.Application()
    entered_it, release = asyncio.Event(), asyncio.Event()
    ended: list[tuple[int, str, bool]] = []

    @app.rpc("wait")
    async def wait(client: cluster.ApplicationClient, data: Any) -> str:
        entered_it.set()
        await release.wait()
        client.send("too late")
        return "too late"

    @app.disconnecting
    async def disconnecting(
        client: cluster.ApplicationClient, event: cluster.Disconnecting
    ) -> None:
        ended.append((event.code, client.session.id, client.is_connected))

    async with LocalWorker(configured(), application=app).open() as worker:
        caller = await worker.caller()
        session = (await caller.connect())["data"]["session"]["id"]
        caller.say({"id": 2, "rpc": {"method": "wait"}})
        await asyncio.wait_for(entered_it.wait(), WITHIN)
        caller.wire.close()
        await until(lambda: bool(ended), WITHIN, "the end is reported")
        release.set()
        assert worker.node.application is not None
        await asyncio.wait_for(worker.node.application.calls.flush(), WITHIN)
    [(code, at, is_connected)] = ended
    assert (at, is_connected) == (session, False)
    assert worker.counters.errors["handler"] == 0, code


# --- sessions --------------------------------------------------------------------------------------


async def test_a_session_is_changed_by_all_tabs_at_once_and_no_change_is_lost():
    app = cluster.Application()

    @app.rpc("increment")
    async def increment(client: cluster.ApplicationClient, data: Any) -> Any:
        return await client.session.change(
            lambda state: {"count": (state or {"count": 0})["count"] + 1}
        )

    worker = LocalWorker(configured(), application=app)
    async with worker.open():
        first = await worker.caller()
        session = (await first.connect())["data"]["session"]["id"]
        tabs = [first, *[await worker.caller() for _ in range(3)]]
        for tab in tabs[1:]:
            await tab.connect(data={"session": session})
        for tab in tabs:
            tab.say(*({"id": 10 + n, "rpc": {"method": "increment"}} for n in range(5)))
        counts = sorted(
            [(await tab.reply(10 + n))["rpc"]["data"]["count"] for tab in tabs for n in range(5)]
        )
        assert counts == list(range(1, 21))
        for tab in tabs:
            await tab.until(partial(_is_told, tab, 20))
        # What was written is seen after `update`.
        [client, *_] = app.clients()
        version = await client.session.update(7, expected_version=client.session.version)
        assert (client.session.state, client.session.version) == (7, version)
        with pytest.raises(cluster.SessionConflict):
            await client.session.update(8, expected_version=version - 1)


def _is_told(tab: Caller, count: int) -> bool:
    return any(_count(one) == count for one in tab.heard)


def _count(heard: dict[str, Any]) -> int | None:
    session = heard.get("push", {}).get("message", {}).get("data", {}).get("session", {})
    count: int | None = session.get("state", {}).get("count")
    return count


# --- from anywhere in the process -------------------------------------------------------------


async def test_publish_broadcast_history_and_disconnect_work_from_anywhere():
    app = cluster.Application()
    with pytest.raises(RuntimeError, match="has not been started by a worker"):
        app.clients()
    async with LocalWorker(configured(options=HISTORY), application=app).open() as worker:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="a")
        first = await app.publish("a", {"n": 1}, tags={"t": "x"})
        sent = await app.broadcast(["a", "b", "no:such"], b'{"n":2.0}')
        assert isinstance(sent[0], Position)
        assert isinstance(sent[2], ClientError)
        assert sent[2].code == 102
        await caller.until(lambda: caller.pubs() == [{"n": 1}, {"n": 2}])
        kept = await app.history("a")
        assert [(one.offset, one.raw, one.tags) for one in kept.publications] == [
            (1, b'{"n":1}', {"t": "x"}),
            (2, b'{"n":2.0}', {}),
        ]
        assert (kept.offset, kept.epoch) == (2, first.epoch)
        assert [one.offset for one in (await app.history("a", since=first)).publications] == [2]
        [client] = app.clients()
        assert client.channels == {"a"}
        client.unsubscribe("a")
        await caller.until(
            lambda: any("unsubscribe" in one.get("push", {}) for one in caller.heard)
        )
        with pytest.raises(ValueError, match="name the user or the client"):
            app.disconnect()
        assert app.disconnect(client="nobody's") == 0
        assert app.disconnect(client=client.id, code=4001, reason="again") == 1
        assert await caller.closed() == (4001, "again")


async def test_a_channel_without_history_says_so():
    app = cluster.Application()
    async with LocalWorker(configured(options=ChannelOptions()), application=app).open():
        with pytest.raises(ClientError, match="108"):
            await app.history("a")


# --- app.http ------------------------------------------------------------------------------------


async def test_an_aiohttp_application_moves_in_whole():
    app, steps = cluster.Application(), []

    @web.middleware
    async def middleware(request: web.Request, handler: Any) -> web.StreamResponse:
        response: web.StreamResponse = await handler(request)
        response.headers["X-Through"] = "middleware"
        return response

    async def context(http: web.Application) -> AsyncIterator[None]:
        steps.append("begun")
        yield
        steps.append("ended")

    async def startup(http: web.Application) -> None:
        steps.append("started")

    async def page(request: web.Request) -> web.Response:
        await app.publish("a", {"from": "http"})
        return web.json_response({"path": request.path, "clients": len(app.clients())})

    async def broken(request: web.Request) -> web.Response:
        raise KeyError("x")

    app.http.middlewares.append(middleware)
    app.http.cleanup_ctx.append(context)
    app.http.on_startup.append(startup)
    app.http.router.add_get("/page", page)
    app.http.router.add_get("/broken", broken)
    worker = LocalWorker(configured(), application=app)
    async with worker.open(), aiohttp.ClientSession() as http:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="a")
        async with http.get(f"http://127.0.0.1:{worker.port}/app/page") as answer:
            assert answer.headers["X-Through"] == "middleware"
            assert await answer.json() == {"path": "/app/page", "clients": 1}
        async with http.get(f"http://127.0.0.1:{worker.port}/app/broken") as answer:
            assert (answer.status, await answer.text()) == (500, "internal server error\n")
        async with http.get(f"http://127.0.0.1:{worker.port}/app/none") as answer:
            assert answer.status == 404
        await caller.until(lambda: caller.pubs() == [{"from": "http"}])
    assert sorted(steps[:2]) == ["begun", "started"]
    assert steps[2:] == ["ended"]
    assert worker.counters.errors["handler"] == 1
    assert sum(worker.counters.handler_duration["http"].counts) >= 2


# --- declaring ------------------------------------------------------------------------------------


def test_a_second_handler_and_no_function_are_refused_with_a_clear_text():
    app = cluster.Application()
    app.message(lambda client, data: None)
    with pytest.raises(ValueError, match="a handler for message already"):
        app.message(lambda client, data: None)
    app.rpc("a")(lambda client, data: None)
    with pytest.raises(ValueError, match="the rpc method 'a' has a handler already"):
        app.rpc("a")(lambda client, data: None)
    with pytest.raises(TypeError, match="is for a function"):
        app.publishing(7)  # type: ignore[type-var]
