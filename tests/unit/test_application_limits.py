"""Applications: the limits of their handlers, sessions, HTTP, and what works from anywhere in the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import aiohttp
import pytest
from aiohttp import web

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


async def test_a_handler_that_takes_more_than_half_of_its_limit_is_counted_as_slow():
    app = cluster.Application()

    @app.rpc("nap")
    async def nap(client: cluster.ApplicationClient, data: Any) -> None:
        await asyncio.sleep(data)

    async with LocalWorker(limited(handler_timeout=1.0), application=app).open() as worker:
        caller = await entered(worker)
        await ask(caller, "rpc", method="nap", data=0)
        assert worker.counters.slow_handlers["rpc"] == 0
        await ask(caller, "rpc", method="nap", data=0.51)
        assert worker.counters.slow_handlers["rpc"] == 1
        assert (await ask(caller, "rpc", method="nap", data=60))["error"]["code"] == 100
        assert worker.counters.slow_handlers["rpc"] == 2
    assert "http" not in worker.counters.slow_handlers


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

    worker = LocalWorker(limited(handler_timeout=60.0), application=app)
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


async def test_presence_is_read_from_anywhere():
    app = cluster.Application()

    @app.connecting
    def connecting(event: cluster.Connecting) -> cluster.ConnectAnswer:
        return cluster.ConnectAnswer(user=event.data["name"], info={"from": "app"})

    options = ChannelOptions(presence=True)
    async with LocalWorker(configured(options=options), application=app).open() as worker:
        assert await app.presence("a") == []
        assert await app.presence_stats("a") == cluster.PresenceStats(0, 0)
        for name in ("ann", "ann", "bob"):
            caller = await entered(worker, data={"name": name})
            await ask(caller, "subscribe", channel="a")
        found = await app.presence("a")
        assert sorted(one.user for one in found) == ["ann", "ann", "bob"]
        assert {one.client for one in found} == {one.id for one in app.clients()}
        assert {(str(one.info), one.channel_info) for one in found} == {("{'from': 'app'}", None)}
        assert await app.presence_stats("a") == cluster.PresenceStats(3, 2)
        with pytest.raises(ClientError, match="102"):
            await app.presence("no:such")
        worker.store.is_up = False
        for read in (app.presence, app.presence_stats):
            with pytest.raises(ClientError, match="100"):
                await read("a")
        worker.store.is_up = True


async def test_a_channel_without_presence_says_so():
    app = cluster.Application()
    async with LocalWorker(configured(options=ChannelOptions()), application=app).open():
        for read in (app.presence, app.presence_stats):
            with pytest.raises(ClientError, match="108"):
                await read("a")


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


async def test_requests_above_the_most_in_progress_are_answered_with_503_and_reach_no_handler():
    app = cluster.Application()
    may_end = asyncio.Event()
    in_progress: list[str] = []

    async def stream(request: web.Request) -> web.StreamResponse:
        in_progress.append(request.path)
        response = web.StreamResponse()
        await response.prepare(request)
        await may_end.wait()
        return response

    app.http.router.add_get("/stream", stream)
    async with (
        LocalWorker(limited(http_concurrency=2), application=app).open() as worker,
        aiohttp.ClientSession() as http,
    ):
        url = f"http://127.0.0.1:{worker.port}/app/stream"
        first, second = await http.get(url), await http.get(url)
        for path in ("stream", "none"):
            async with http.get(f"http://127.0.0.1:{worker.port}/app/{path}") as refused:
                assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert (len(in_progress), worker.counters.handler_failures["overload"]) == (2, 2)
        may_end.set()
        for answer in (first, second):
            await answer.read()
        async with http.get(url) as answer:
            assert answer.status == 200
        assert len(in_progress) == 3
