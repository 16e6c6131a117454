"""Subscriptions that the server refreshes: a backend, or the application, is asked when they expire."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

import cluster
from cluster.config import ChannelOptions, Config, HttpApiConfig, Namespace, TokenConfig
from cluster.config.proxy_options import NamedProxy, ProxyOptions
from cluster.connection import Subscription
from cluster.errors import SERVER_UNSUBSCRIBE
from cluster.proxy import proxy_application
from tests.harness.waiting import until
from tests.unit.api_workers import call
from tests.unit.local_worker import Caller, LocalWorker, ask, changed, configured, entered
from tests.unit.test_auth import token
from tests.unit.test_proxies import HEADERS, Backend, a_backend, proxied
from tests.unit.test_server_api import KEY

LATER = 3600


def refreshed(port: int, *, delay: float = 0.0, name: str = "default") -> Config:
    """A configuration whose channels `kept:…` have subscriptions that a backend allows and extends."""
    config = proxied(port)
    endpoint = f"http://127.0.0.1:{port}/sub_refresh"
    kept = ChannelOptions(
        subscribe_proxy_enabled=True,
        sub_refresh_proxy_enabled=True,
        sub_refresh_proxy_name=name,
        presence=True,
        allow_presence_for_client=True,
    )
    channel = dataclasses.replace(
        config.channel,
        namespaces=(*config.channel.namespaces, Namespace("kept", kept)),
        proxy=dataclasses.replace(
            config.channel.proxy, sub_refresh=ProxyOptions(endpoint, 5.0, HEADERS)
        ),
    )
    return changed(
        config,
        channel=channel,
        client=dataclasses.replace(
            config.client, token=TokenConfig(hmac_secret_key=KEY), expired_sub_close_delay=delay
        ),
        http_api=HttpApiConfig(KEY),
        proxies=(NamedProxy(f"http://127.0.0.1:{port}/named", 5.0, name="second"),),
    )


@contextlib.asynccontextmanager
async def a_worker(backend: Backend, **options: Any) -> AsyncIterator[LocalWorker]:
    backend.answers["connect"] = {"result": {"user": "42"}}
    backend.answers["subscribe"] = lambda _: {"result": {"expire_at": int(time.time()) + 1}}
    config = refreshed(backend.port, **options)
    async with LocalWorker(config, application=proxy_application(config)).open() as worker:
        yield worker


def subscription(worker: LocalWorker, channel: str = "kept:a") -> Subscription:
    [client] = worker.node.clients.of("42")
    found: Subscription = client.connection.channels[channel]
    return found


async def unsubscribed(caller: Caller) -> int:
    """Wait until the server ends a subscription; returns the code."""
    pushes = await caller.until(
        lambda: [one["push"] for one in caller.heard if "unsubscribe" in one.get("push", {})]
    )
    code: int = pushes[0]["unsubscribe"]["code"]
    return code


# --- the proxy -----------------------------------------------------------------------------


async def test_the_backend_extends_a_subscription_and_the_client_need_not():
    async with a_backend() as backend, a_worker(backend) as worker:
        ends = int(time.time()) + LATER
        backend.answers["sub_refresh"] = {"result": {"expire_at": ends, "info": {"n": 2}}}
        caller = await worker.caller(headers={"Cookie": "a=1"})
        client = (await caller.connect())["client"]
        subscribed = (await ask(caller, "subscribe", channel="kept:a"))["subscribe"]
        assert "expires" not in subscribed
        await until(lambda: subscription(worker).expires_at == ends, 10, "it is extended")
        assert subscription(worker).info == b'{"n": 2}'
        [(body, headers)] = [
            (body, headers) for kind, body, headers in backend.asked if kind == "sub_refresh"
        ]
        assert body == {
            "client": client,
            "transport": "websocket",
            "protocol": "json",
            "encoding": "json",
            "user": "42",
            "channel": "kept:a",
        }
        assert headers["Cookie"] == "a=1"
        members = (await ask(caller, "presence", channel="kept:a"))["presence"]["presence"]
        assert members[client]["chan_info"] == {"n": 2}
        assert worker.counters.refresh_failures["subscription"] == 0


async def test_a_client_may_not_refresh_what_the_backend_refreshes():
    """Its own token would go on past what the backend says (protocol §2.2)."""
    async with a_backend() as backend, a_worker(backend) as worker:
        ends = int(time.time()) + LATER
        backend.answers["connect"] = {"result": {"user": "42", "expire_at": ends}}
        backend.answers["subscribe"] = {"result": {"expire_at": ends}}
        for command in (
            {"refresh": {"token": token(sub="42")}},
            {"sub_refresh": {"channel": "kept:a", "token": token(sub="42", channel="kept:a")}},
        ):
            caller = await worker.caller()
            await caller.connect()
            await ask(caller, "subscribe", channel="kept:a")
            caller.say({"id": 9, **command})
            assert (await caller.closed())[0] == 3501


@pytest.mark.parametrize("is_sent", [True, False])
async def test_the_meta_of_the_connection_is_sent_where_the_proxy_says_so(is_sent: bool):
    async with a_backend() as backend:
        backend.answers["connect"] = {"result": {"user": "42", "meta": {"team": 7}}}
        backend.answers["subscribe"] = lambda _: {"result": {"expire_at": int(time.time()) + 1}}
        config = refreshed(backend.port)
        asked = dataclasses.replace(
            config.channel.proxy.sub_refresh, include_connection_meta=is_sent
        )
        proxy = dataclasses.replace(config.channel.proxy, sub_refresh=asked)
        config = changed(config, channel=dataclasses.replace(config.channel, proxy=proxy))
        async with LocalWorker(config, application=proxy_application(config)).open() as worker:
            caller = await entered(worker)
            await ask(caller, "subscribe", channel="kept:a")
            await until(lambda: backend.of("sub_refresh") != [], 10, "the backend is asked")
        assert backend.of("sub_refresh")[0].get("meta") == ({"team": 7} if is_sent else None)
        assert "meta" not in backend.of("subscribe")[0]


async def test_a_subscription_is_asked_for_again_each_time_that_it_expires_and_may_become_endless():
    async with a_backend() as backend, a_worker(backend) as worker:
        answers = iter([{"expire_at": int(time.time()) + 2}, {}])
        backend.answers["sub_refresh"] = lambda _: {"result": next(answers)}
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="kept:a")
        await until(lambda: len(backend.of("sub_refresh")) == 2, 10, "it is asked for again")
        await until(lambda: subscription(worker).expires_at == 0, 10, "it does not expire")


@pytest.mark.parametrize("result", [{"expired": True}, {"expire_at": 1}])
async def test_a_subscription_ends_when_the_backend_says_so(result: dict[str, Any]):
    async with a_backend() as backend, a_worker(backend) as worker:
        backend.answers["sub_refresh"] = {"result": result}
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="kept:a")
        assert await unsubscribed(caller) == 2501
        assert worker.counters.refresh_failures["subscription"] == 1
        assert len(backend.of("sub_refresh")) == 1


async def test_a_backend_that_fails_is_asked_again_and_its_failures_are_counted_and_logged():
    async with a_backend() as backend, a_worker(backend, delay=60.0) as worker:
        ends = int(time.time()) + LATER
        answers = iter([web.Response(status=503), {"result": {"expire_at": ends}}])
        backend.answers["sub_refresh"] = lambda _: next(answers)
        caller = await entered(worker)
        with capture_logs() as logs:
            await ask(caller, "subscribe", channel="kept:a")
            await until(lambda: subscription(worker).expires_at == ends, 10, "it is extended")
        assert worker.counters.errors["handler"] == 1
        [failed] = [one for one in logs if one["event"] == "handler_failed"]
        assert failed["kind"] == "sub_refreshing"
        assert worker.counters.refresh_failures["subscription"] == 0


async def test_a_subscription_ends_if_the_backend_cannot_be_asked_within_the_delay():
    async with a_backend() as backend, a_worker(backend) as worker:
        backend.answers["sub_refresh"] = lambda _: web.Response(status=503)
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="kept:a")
        assert await unsubscribed(caller) == 2501


async def test_a_disconnect_of_the_backend_closes_the_connection():
    async with a_backend() as backend, a_worker(backend) as worker:
        backend.answers["sub_refresh"] = {"disconnect": {"code": 4501, "reason": "banned"}}
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="kept:a")
        assert await caller.closed() == (4501, "banned")


async def test_a_subscription_that_has_ended_while_the_backend_was_asked_is_not_ended_again():
    async with a_backend() as backend, a_worker(backend) as worker:
        caller = await entered(worker)

        def ended(_: object) -> dict[str, Any]:
            [client] = worker.node.clients.of("42")
            client.perform(client.connection.unsubscribe("kept:a", SERVER_UNSUBSCRIBE))
            return {"result": {"expired": True}}

        backend.answers["sub_refresh"] = ended
        await ask(caller, "subscribe", channel="kept:a")
        assert await unsubscribed(caller) == 2000
        assert worker.counters.refresh_failures["subscription"] == 0


async def test_a_subscription_with_a_token_is_extended_by_the_backend_where_the_namespace_says_so():
    async with a_backend() as backend, a_worker(backend) as worker:
        ends = int(time.time()) + LATER
        backend.answers["sub_refresh"] = {"result": {"expire_at": ends}}
        caller = await entered(worker)
        given = token(key=KEY, sub="42", channel="$kept:a", exp=int(time.time()) + 1)
        subscribed = (await ask(caller, "subscribe", channel="$kept:a", token=given))["subscribe"]
        assert "expires" not in subscribed, "the SDK need not refresh it"
        await until(lambda: subscription(worker, "$kept:a").expires_at == ends, 10, "extended")


async def test_a_subscription_of_the_server_api_is_extended_or_closes_the_connection():
    async with a_backend() as backend, a_worker(backend) as worker:
        ends = int(time.time()) + LATER
        answers = iter([{"expire_at": ends}, {"expired": True}])
        backend.answers["sub_refresh"] = lambda _: {"result": next(answers)}
        caller = await entered(worker)
        soon = int(time.time()) + 1
        await call(worker, "subscribe", user="42", channel="kept:one", expire_at=soon)
        await until(lambda: backend.of("sub_refresh") != [], 10, "the backend is asked")
        await until(
            lambda: subscription(worker, "kept:one").expires_at == ends, 10, "it is extended"
        )
        soon = int(time.time()) + 1
        await call(worker, "subscribe", user="42", channel="kept:two", expire_at=soon)
        assert (await caller.closed())[0] == 3006


async def test_a_namespace_may_have_a_sub_refresh_proxy_of_its_own():
    async with a_backend() as backend, a_worker(backend, name="second") as worker:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="kept:a")
        await until(lambda: backend.of("named") != [], 10, "the named one is asked")
        await until(lambda: subscription(worker).expires_at == 0, 10, "it is extended")
        assert backend.of("sub_refresh") == []


async def test_subscriptions_that_expire_together_are_asked_for_side_by_side():
    # On a busy machine the first have ended before the last are subscribed.
    async with a_backend() as backend, a_worker(backend, delay=60.0) as worker:
        channels = [f"kept:{number}" for number in range(20)]
        ends = int(time.time()) + LATER
        backend.answers["sub_refresh"] = {"result": {"expire_at": ends}}
        caller = await entered(worker)
        for channel in channels:
            await ask(caller, "subscribe", channel=channel)
        await until(
            lambda: all(subscription(worker, one).expires_at == ends for one in channels),
            10,
            "all are extended",
        )
        asked = [one["channel"] for one in backend.of("sub_refresh")]
        assert sorted(asked) == sorted(channels), "each is asked for once"


# --- an application ------------------------------------------------------------------------


async def test_an_application_extends_a_subscription_that_it_has_allowed():
    app = cluster.Application()
    ends = int(time.time()) + LATER
    asked: list[str] = []

    @app.subscribing
    def subscribing(
        client: cluster.ApplicationClient, event: cluster.Subscribing
    ) -> cluster.SubscribeAnswer:
        soon = int(time.time()) + 1
        return cluster.SubscribeAnswer(expires_at=soon, refreshed_by_server=True)

    @app.sub_refreshing
    def sub_refreshing(
        client: cluster.ApplicationClient, event: cluster.SubRefreshing
    ) -> cluster.RefreshAnswer | None:
        asked.append(event.channel)
        return cluster.RefreshAnswer(ends) if event.channel == "a" else None

    config = configured(expired_sub_close_delay=0.0)
    async with LocalWorker(config, application=app).open() as worker:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="a")
        await ask(caller, "subscribe", channel="b")
        assert await unsubscribed(caller) == 2501
        [client] = worker.node.clients.of("")
        await until(lambda: client.connection.channels["a"].expires_at == ends, 10, "extended")
        assert set(client.connection.channels) == {"a"}
    assert sorted(asked) == ["a", "b"]


@pytest.mark.parametrize("kind", ["connecting", "subscribing"])
async def test_an_answer_that_needs_a_handler_that_is_not_there_is_a_failure(kind: str):
    app = cluster.Application()
    soon = int(time.time()) + 1
    if kind == "connecting":
        app.connecting(lambda _: cluster.ConnectAnswer(expires_at=soon, refreshed_by_server=True))
    else:
        app.subscribing(
            lambda *_: cluster.SubscribeAnswer(expires_at=soon, refreshed_by_server=True)
        )
    async with LocalWorker(configured(), application=app).open() as worker:
        caller = await worker.caller()
        with capture_logs() as logs:
            caller.say({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "a"}})
            refused = await caller.reply(1 if kind == "connecting" else 2)
        assert refused["error"]["code"] == 100
        [failed] = [one for one in logs if one["event"] == "handler_failed"]
        assert "needs a handler @app." in str(failed["exc_info"])


async def test_info_that_is_no_json_is_a_failure_of_the_handler():
    app = cluster.Application()
    app.connecting(
        lambda _: cluster.ConnectAnswer(
            user="42", expires_at=int(time.time()) + 1, refreshed_by_server=True
        )
    )
    app.refreshing(lambda *_: cluster.RefreshAnswer(0, info=object()))
    config = configured(expired_close_delay=0.0)
    async with LocalWorker(config, application=app).open() as worker:
        caller = await entered(worker)
        assert (await caller.closed())[0] == 3005
        assert worker.counters.errors["handler"] == 1
