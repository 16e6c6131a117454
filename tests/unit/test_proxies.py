"""Proxies: what a backend is asked over HTTP, and what its answers do."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from cluster.config import ChannelConfig, ChannelOptions, Config, Namespace
from cluster.config.proxy_options import (
    ChannelProxies,
    ClientProxies,
    NamedProxy,
    ProxyHttpOptions,
    ProxyOptions,
    RpcConfig,
    RpcMethodOptions,
    SwitchedProxyOptions,
)
from cluster.proxy import proxy_application
from cluster.proxy.backend import MOST_BYTES, BackendFailed
from cluster.proxy.backend import Backend as HttpBackend
from tests.harness.processes import free_ports
from tests.harness.waiting import until
from tests.unit.local_worker import RECOVERABLE, LocalWorker, ask, changed, configured, entered

HEADERS = ("Cookie", "X-Team")


class Backend:
    """A backend; `answers` are by path: JSON, or what the body, the status or the delay is to be."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.answers: dict[str, Any] = {}
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        self.asked.append((kind, await request.json(), dict(request.headers)))
        answer = self.answers.get(kind, {"result": {}})
        if callable(answer):
            answer = answer(self.asked[-1][1])
        if isinstance(answer, web.Response):
            return answer
        if answer == "never":
            await asyncio.sleep(30)
        return web.json_response(answer)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [body for one, body, _ in self.asked if one == kind]


@contextlib.asynccontextmanager
async def a_backend() -> AsyncIterator[Backend]:
    backend = Backend()
    app = web.Application()
    app.router.add_post("/{kind}", backend.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    backend.port = runner.addresses[0][1]
    try:
        yield backend
    finally:
        await runner.cleanup()


def proxied(port: int, *, timeout: float = 5.0, insecure: bool = False) -> Config:
    def where(kind: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{port}/{kind}"
        return {"endpoint": url, "timeout": timeout, "http_headers": HEADERS}

    config = configured(insecure=insecure, expired_close_delay=0.0, expired_sub_close_delay=0.0)
    client = dataclasses.replace(
        config.client,
        proxy=ClientProxies(
            SwitchedProxyOptions(**where("connect"), enabled=True),
            SwitchedProxyOptions(**where("refresh"), enabled=True),
        ),
    )
    asked = dataclasses.replace(
        RECOVERABLE,
        subscribe_proxy_enabled=True,
        publish_proxy_enabled=True,
        allow_user_limited_channels=True,
    )
    channel = ChannelConfig(
        proxy=ChannelProxies(ProxyOptions(**where("subscribe")), ProxyOptions(**where("publish"))),
        namespaces=(
            Namespace("asked", asked),
            Namespace("open", ChannelOptions(allow_subscribe_for_client=True)),
        ),
    )
    rpc = RpcConfig(ProxyOptions(**where("rpc")), RpcMethodOptions(proxy_enabled=True))
    return changed(config, client=client, channel=channel, rpc=rpc)


@contextlib.asynccontextmanager
async def worker_at(backend: Backend, **options: Any) -> AsyncIterator[LocalWorker]:
    config = proxied(backend.port, **options)
    application = proxy_application(config)
    async with LocalWorker(config, application=application).open() as worker:
        yield worker


def test_without_a_proxy_there_is_no_application():
    config = configured()
    assert proxy_application(config) is None


# --- connect -------------------------------------------------------------------------------


async def test_a_connect_is_decided_by_the_backend():
    async with a_backend() as backend, worker_at(backend) as worker:
        backend.answers["connect"] = {
            "result": {
                "user": "42",
                "info": {"name": "Ann"},
                "data": {"hello": [1.50]},
                "channels": ["asked:mine"],
                "meta": {"secret": 1},
            }
        }
        caller = await worker.caller(headers={"Cookie": "a=1", "X-Other": "no"})
        before = {"asked:mine": {"recover": True, "offset": 1, "epoch": "gone"}}
        result = await caller.connect(name="js", version="1.2", data={"password": "x"}, subs=before)
        assert result["data"]["hello"] == [1.5]
        assert list(result["subs"]) == ["asked:mine"]
        [(_, body, headers)] = backend.asked
        assert body == {
            "client": result["client"],
            "transport": "websocket",
            "protocol": "json",
            "encoding": "json",
            "name": "js",
            "version": "1.2",
            "channels": ["asked:mine"],
            "data": {"password": "x"},
        }
        assert headers["Cookie"] == "a=1"
        assert "X-Other" not in headers
        [client] = worker.node.clients.of("42")
        assert (client.connection.info, client.connection.claims.meta) == (
            b'{"name": "Ann"}',
            b'{"secret": 1}',
        )


async def test_subs_of_the_backend_have_options():
    async with a_backend() as backend, worker_at(backend) as worker:
        subs = {"asked:a": {"data": 1, "override": {"force_recovery": {"value": False}}}}
        backend.answers["connect"] = {"result": {"user": "42", "subs": subs}}
        result = await (await worker.caller()).connect()
        assert result["subs"]["asked:a"]["data"] == 1
        assert "recoverable" not in result["subs"]["asked:a"]


async def test_a_client_with_a_token_is_not_asked_for():
    async with a_backend() as backend, worker_at(backend) as worker:
        caller = await worker.caller()
        caller.say({"id": 1, "connect": {"token": "no.token.here"}})
        assert (await caller.closed())[0] == 3500
        assert backend.asked == []


async def test_the_backend_decides_before_a_client_without_a_token_is_anonymous():
    async with a_backend() as backend:
        given = proxied(backend.port)
        client = dataclasses.replace(given.client, allow_anonymous_connect_without_token=True)
        config = changed(given, client=client)
        async with LocalWorker(config, application=proxy_application(config)).open() as worker:
            backend.answers["connect"] = {"disconnect": {"code": 4001, "reason": "no"}}
            refused = await worker.caller()
            refused.say({"id": 1, "connect": {}})
            assert (await refused.closed())[0] == 4001
            backend.answers["connect"] = {"result": {"user": "42"}}
            await (await worker.caller()).connect()
            assert len(worker.node.clients.of("42")) == 1


async def test_errors_and_disconnects_of_the_backend_reach_the_client():
    async with a_backend() as backend, worker_at(backend) as worker:
        backend.answers["connect"] = {"error": {"code": 1000, "message": "not today"}}
        caller = await worker.caller()
        caller.say({"id": 1, "connect": {}})
        assert (await caller.reply(1))["error"] == {"code": 1000, "message": "not today"}
        backend.answers["connect"] = {"disconnect": {"code": 4501, "reason": "banned"}}
        caller = await worker.caller()
        caller.say({"id": 1, "connect": {}})
        assert await caller.closed() == (4501, "banned")
        assert worker.counters.errors["handler"] == 0


BAD: list[tuple[Any, str]] = [
    (lambda _: web.Response(status=500), "has answered 500"),
    (lambda _: web.Response(status=302, headers={"Location": "/other"}), "has answered 302"),
    (lambda _: web.Response(text="no json"), "cannot be read"),
    (lambda _: web.Response(text="[" * 2000), "cannot be read"),
    (lambda _: web.Response(body=b" " * 1_100_000), "more than 1048576 bytes"),
    ({"result": {"user": 7}}, "cannot be read"),
    ({}, "without result, error and disconnect"),
    ({"result": {"data": [1]}}, "must be an object"),
    ({"result": {"data": {"session": 1}}}, "session"),
    ({"result": {"meta": [1]}}, "meta must be an object"),
    ({"result": {"subs": [1]}}, "subs must be an object"),
    ({"result": {"b64info": "***"}}, ""),
    ({"error": {"code": 100, "message": "x"}}, "codes from 400 to 1999"),
    ({"disconnect": {"code": 3000, "reason": "x"}}, "codes from 4000 to 4999"),
]


@pytest.mark.parametrize(("answer", "says"), BAD)
async def test_an_answer_that_cannot_be_used_is_error_100_counted_and_logged(
    answer: Any, says: str
):
    async with a_backend() as backend, worker_at(backend) as worker:
        backend.answers["connect"] = answer
        caller = await worker.caller()
        with capture_logs() as logs:
            caller.say({"id": 1, "connect": {}})
            error = (await caller.reply(1))["error"]
        assert (error["code"], error["temporary"]) == (100, True)
        assert worker.counters.errors["handler"] == 1
        [failed] = [one for one in logs if one["event"] == "handler_failed"]
        assert says in str(failed["exc_info"])
        assert not worker.node.clients.count


async def test_a_backend_that_does_not_answer_in_time_is_error_100():
    async with a_backend() as backend, worker_at(backend, timeout=0.1) as worker:
        backend.answers["connect"] = "never"
        caller = await worker.caller()
        caller.say({"id": 1, "connect": {}})
        assert (await caller.reply(1))["error"]["code"] == 100
        assert worker.counters.errors["handler"] == 1
        assert worker.counters.slow_handlers["connecting"] == 1


async def test_a_backend_that_is_away_is_error_100():
    async with a_backend() as backend:
        port = backend.port
    gone = Backend()
    gone.port = port
    async with worker_at(gone) as worker:
        caller = await worker.caller()
        caller.say({"id": 1, "connect": {}})
        assert (await caller.reply(1))["error"]["code"] == 100


@pytest.mark.parametrize("fault", ["away", "slow", "status", "empty", "large", "no JSON"])
async def test_the_password_of_a_backend_is_sent_and_in_no_error(fault: str):
    async with a_backend() as backend, aiohttp.ClientSession() as session:
        backend.answers["connect"] = {
            "slow": "never",
            "status": web.Response(status=500),
            "large": web.Response(body=b" " * (MOST_BYTES + 1)),
            "no JSON": web.Response(body=b"<"),
        }.get(fault, {})
        port = free_ports(1) if fault == "away" else backend.port
        options = ProxyOptions(f"http://be:hunt%65r4@127.0.0.1:{port}/connect?key=hunter5", 0.5)
        with pytest.raises(BackendFailed) as failure:
            await HttpBackend(options, session).ask({}, {}, {"authorization": "the client's"})
        assert f"http://127.0.0.1:{port}/connect" in str(failure.value)
        assert "hunt" not in str(failure.value)
        for _, _, headers in backend.asked:
            assert headers["Authorization"] == aiohttp.encode_basic_auth("be", "hunter4")
        assert bool(backend.asked) is (fault != "away")


# --- refresh -------------------------------------------------------------------------------


async def test_the_backend_extends_a_connection_and_the_client_need_not():
    async with a_backend() as backend, worker_at(backend) as worker:
        now = int(time.time())
        backend.answers["connect"] = {"result": {"user": "42", "expire_at": now + 1}}
        backend.answers["refresh"] = {"result": {"expire_at": now + 3600, "info": {"n": 2}}}
        caller = await worker.caller()
        result = await caller.connect()
        assert "expires" not in result
        [client] = worker.node.clients.of("42")
        await until(lambda: client.connection.expires_at == now + 3600, 10, "it is extended")
        assert client.connection.info == b'{"n": 2}'
        [about] = backend.of("refresh")
        assert (about["user"], about["client"]) == ("42", result["client"])


async def test_a_connection_ends_when_the_backend_says_so():
    async with a_backend() as backend, worker_at(backend) as worker:
        ends = int(time.time()) + 1
        backend.answers["connect"] = {"result": {"user": "42", "expire_at": ends}}
        backend.answers["refresh"] = {"result": {"expired": True}}
        caller = await worker.caller()
        await caller.connect()
        assert (await caller.closed())[0] == 3005
        assert worker.counters.refresh_failures["connection"] == 1


async def test_a_connection_ends_if_the_backend_cannot_be_asked():
    async with a_backend() as backend, worker_at(backend) as worker:
        ends = int(time.time()) + 1
        backend.answers["connect"] = {"result": {"user": "42", "expire_at": ends}}
        backend.answers["refresh"] = lambda _: web.Response(status=503)
        caller = await worker.caller()
        await caller.connect()
        assert (await caller.closed())[0] == 3005


# --- channels and calls --------------------------------------------------------------------


async def test_a_subscribe_is_decided_by_the_backend_where_the_namespace_says_so():
    async with a_backend() as backend, worker_at(backend) as worker:
        backend.answers["connect"] = {"result": {"user": "42"}}
        backend.answers["subscribe"] = {"result": {"data": {"x": 1}, "info": {"role": "admin"}}}
        caller = await entered(worker)
        subscribed = (await ask(caller, "subscribe", channel="asked:a", data=[1.50]))["subscribe"]
        assert subscribed["data"] == {"x": 1}
        assert "expires" not in subscribed
        [about] = backend.of("subscribe")
        assert (about["user"], about["channel"], about["data"]) == ("42", "asked:a", [1.5])
        [client] = worker.node.clients.of("42")
        assert client.connection.channels["asked:a"].info == b'{"role": "admin"}'
        assert "subscribe" in await ask(caller, "subscribe", channel="open:a")
        assert (await ask(caller, "subscribe", channel="asked:#43"))["error"]["code"] == 103
        assert len(backend.of("subscribe")) == 1
        backend.answers["subscribe"] = {"error": {"code": 403, "message": "no"}}
        assert (await ask(caller, "subscribe", channel="asked:b"))["error"]["code"] == 403


async def test_a_subscription_of_the_backend_ends_when_it_says():
    async with a_backend() as backend, worker_at(backend) as worker:
        backend.answers["connect"] = {"result": {"user": "42"}}
        backend.answers["subscribe"] = {"result": {"expire_at": int(time.time()) + 1}}
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="asked:a")
        push = await caller.until(
            lambda: next((one for one in caller.heard if "unsubscribe" in one.get("push", {})), {})
        )
        assert push["push"]["unsubscribe"]["code"] == 2501


async def test_a_publish_is_decided_and_may_be_changed_by_the_backend():
    async with a_backend() as backend, worker_at(backend) as worker:
        backend.answers["connect"] = {"result": {"user": "42"}}
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="asked:a")
        assert "publish" in await ask(caller, "publish", channel="asked:a", data={"n": 1.50})
        backend.answers["publish"] = {"result": {"data": {"n": "changed"}}}
        await ask(caller, "publish", channel="asked:a", data=2)
        await caller.until(lambda: caller.pubs() == [{"n": 1.5}, {"n": "changed"}])
        assert [one["data"] for one in backend.of("publish")] == [{"n": 1.5}, 2]
        assert (await ask(caller, "publish", channel="open:a", data=2))["error"]["code"] == 103


async def test_a_publication_of_which_the_backend_says_so_is_delivered_and_not_kept():
    async with a_backend() as backend, worker_at(backend) as worker:
        backend.answers["connect"] = {"result": {"user": "42"}}
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="asked:a")
        await ask(caller, "publish", channel="asked:a", data="kept")
        backend.answers["publish"] = {"result": {"skip_history": True}}
        assert "publish" in await ask(caller, "publish", channel="asked:a", data="passing")
        await caller.until(lambda: caller.pubs() == ["kept", "passing"])
        offsets = [one["push"]["pub"].get("offset") for one in caller.heard if "push" in one]
        assert offsets == [1, None]
        [kept] = worker.store.streams["asked:a"].entries
        assert b"kept" in kept.body


async def test_namespaces_and_calls_may_have_proxies_of_their_own_with_headers_of_their_own():
    async with a_backend() as backend:
        config = proxied(backend.port)
        other = NamedProxy(
            endpoint=f"http://127.0.0.1:{backend.port}/other",
            http_headers=("Cookie",),
            http=ProxyHttpOptions((("Authorization", "bearer x"), ("Cookie", "mine"))),
            name="second",
        )
        named = ChannelOptions(
            subscribe_proxy_enabled=True,
            subscribe_proxy_name="second",
            publish_proxy_enabled=True,
            publish_proxy_name="second",
        )
        spaces = (*config.channel.namespaces, Namespace("named", named))
        channel = dataclasses.replace(config.channel, namespaces=spaces)
        rpc = dataclasses.replace(
            config.rpc, without_namespace=RpcMethodOptions(proxy_enabled=True, proxy_name="second")
        )
        config = changed(config, channel=channel, rpc=rpc, proxies=(other,))
        async with LocalWorker(config, application=proxy_application(config)).open() as worker:
            backend.answers["connect"] = {"result": {"user": "42"}}
            caller = await worker.caller(headers={"Cookie": "a=1"})
            await caller.connect()
            await ask(caller, "subscribe", channel="asked:a")
            await ask(caller, "subscribe", channel="named:a")
            await ask(caller, "publish", channel="named:a", data=1)
            await ask(caller, "rpc", method="add", data=2)
            assert [kind for kind, _, _ in backend.asked] == [
                "connect", "subscribe", "other", "other", "other",
            ]  # fmt: skip
            for kind, _, headers in backend.asked:
                is_other = kind == "other"
                assert headers.get("Authorization") == ("bearer x" if is_other else None)
                assert headers["Cookie"] == ("mine" if is_other else "a=1")


async def test_a_call_is_answered_by_the_backend():
    async with a_backend() as backend, worker_at(backend) as worker:
        backend.answers["connect"] = {"result": {"user": "42"}}
        backend.answers["rpc"] = {"result": {"data": {"sum": 3}}}
        caller = await entered(worker)
        assert (await ask(caller, "rpc", method="add", data=[1, 2]))["rpc"] == {"data": {"sum": 3}}
        [about] = backend.of("rpc")
        assert (about["method"], about["data"], about["user"]) == ("add", [1, 2], "42")
        backend.answers["rpc"] = {"result": {"b64data": base64.b64encode(b"\0\1").decode()}}
        binary = "data:;base64,AAE="
        assert (await ask(caller, "rpc", method="add", data=binary))["rpc"]["data"] == binary
        assert backend.of("rpc")[1]["b64data"] == "AAE="
        backend.answers["rpc"] = {"result": {}}
        assert (await ask(caller, "rpc", method="add"))["rpc"] == {"data": None}
