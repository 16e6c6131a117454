"""Whoever names an expiry, it is within a year: SDKs and Protobuf read the remaining seconds in 32 bits."""

from __future__ import annotations

import time
from typing import Any

import pytest

import cluster
from cluster import expiry_clock
from cluster.config import HttpApiConfig
from cluster.expiry_clock import MAXIMUM_SECONDS
from tests.harness.waiting import until
from tests.unit.local_worker import Caller, LocalWorker, ask, changed, configured
from tests.unit.test_opaque_data import KEY, posted
from tests.unit.test_proxies import a_backend, worker_at
from tests.unit.test_websocket_protobuf import BY_SUBPROTOCOL, ProtobufCaller, protobuf_caller

WITHIN = 10.0
YEAR_9999 = 253_402_300_799
FAR = [YEAR_9999, 2**53, 10**18]
#: More than a year is never told, and the answers come within these seconds.
TOLERANCE = 100


def is_a_year(seconds: float) -> bool:
    return MAXIMUM_SECONDS - TOLERANCE < seconds <= MAXIMUM_SECONDS


def is_held_for_a_year(expires_at: float) -> bool:
    return is_a_year(expires_at - expiry_clock.now() - 1)


def application(expires_at: int) -> cluster.Application:
    app = cluster.Application()
    app.connecting(lambda event: cluster.ConnectAnswer(user="ann", expires_at=expires_at))
    app.refreshing(lambda client, event: cluster.RefreshAnswer(expires_at))
    app.subscribing(lambda client, event: cluster.SubscribeAnswer(expires_at=expires_at))
    return app


def worker_of(app: cluster.Application) -> LocalWorker:
    config = configured(expired_sub_close_delay=0.0)
    return LocalWorker(changed(config, http_api=HttpApiConfig(KEY)), application=app)


async def callers(worker: LocalWorker) -> tuple[Caller, ProtobufCaller]:
    json = await worker.caller()
    assert is_a_year((await json.connect())["ttl"])
    protobuf = await protobuf_caller(worker, headers=BY_SUBPROTOCOL)
    assert is_a_year(protobuf.heard[0].connect.ttl)
    return json, protobuf


@pytest.mark.parametrize("expires_at", FAR)
async def test_an_expiry_of_a_handler_is_within_a_year(expires_at: int):
    async with worker_of(application(expires_at)).open() as worker:
        json, protobuf = await callers(worker)
        assert is_a_year((await ask(json, "refresh", token="any"))["refresh"]["ttl"])
        assert is_a_year((await protobuf.ask(2, "refresh", token="any")).refresh.ttl)
        assert "subscribe" in await ask(json, "subscribe", channel="a")
        assert (await protobuf.ask(3, "subscribe", channel="a")).HasField("subscribe")
        for client in worker.server.clients:
            details = client.connection.channels["a"].details
            assert details is not None
            assert is_held_for_a_year(details.expires_at)
            assert is_held_for_a_year(client.connection.expires_at)


@pytest.mark.parametrize("expires_at", FAR)
async def test_an_expiry_of_a_backend_that_a_proxy_asks_is_within_a_year(expires_at: int):
    async with a_backend() as backend, worker_at(backend) as worker:
        answer = {"result": {"user": "ann", "expire_at": expires_at}}
        backend.answers = {"connect": answer, "subscribe": answer}
        protobuf = await protobuf_caller(worker, headers=BY_SUBPROTOCOL)
        assert (await protobuf.ask(2, "subscribe", channel="asked:a")).HasField("subscribe")
        [client] = worker.server.clients
        details = client.connection.channels["asked:a"].details
        assert details is not None
        assert is_held_for_a_year(details.expires_at)
        assert is_held_for_a_year(client.connection.expires_at)


async def test_an_expiry_with_which_the_server_refreshes_is_within_a_year():
    soon = int(time.time()) + 1
    app = cluster.Application()
    app.connecting(
        lambda event: cluster.ConnectAnswer(user="ann", expires_at=soon, refreshed_by_server=True)
    )
    app.refreshing(lambda client, event: cluster.RefreshAnswer(YEAR_9999))
    async with worker_of(app).open() as worker:
        await (await worker.caller()).connect()
        [client] = worker.server.clients
        await until(lambda: client.connection.expires_at != soon, WITHIN, "it is refreshed")
        assert is_held_for_a_year(client.connection.expires_at)


@pytest.mark.parametrize("expires_at", [YEAR_9999, 2**53 - 1])
async def test_an_expiry_of_the_server_api_is_within_a_year_for_all_of_a_users_connections(
    expires_at: int,
):
    async with worker_of(application(0)).open() as worker:
        json = []
        for _ in range(4):
            protobuf = await protobuf_caller(worker, headers=BY_SUBPROTOCOL)
            json.append(await worker.caller())
            await json[-1].connect()
        status, body = await posted(
            worker, "refresh", b'{"user":"ann","expire_at":%d}' % expires_at
        )
        assert (status, body) == (200, b'{"result":{}}')
        for one in json:
            assert is_a_year((await pushed(one, "refresh"))["ttl"])
        told = await protobuf.until(
            lambda: [one for one in protobuf.heard if one.push.HasField("refresh")]
        )
        assert is_a_year(told[0].push.refresh.ttl)
        assert all(is_held_for_a_year(one.connection.expires_at) for one in worker.server.clients)


async def test_a_subscription_of_the_server_api_is_within_a_year():
    async with worker_of(application(0)).open() as worker:
        json = await worker.caller()
        await json.connect()
        await posted(
            worker, "subscribe", b'{"user":"ann","channel":"a","expire_at":%d}' % YEAR_9999
        )
        await pushed(json, "subscribe")
        [client] = worker.server.clients
        details = client.connection.channels["a"].details
        assert details is not None
        assert is_held_for_a_year(details.expires_at)


async def pushed(caller: Caller, kind: str) -> dict[str, Any]:
    pushes = await caller.until(
        lambda: [one["push"] for one in caller.heard if kind in one.get("push", {})]
    )
    found: dict[str, Any] = pushes[0][kind]
    return found


@pytest.mark.parametrize("expires_at", [-1, -(10**18)])
async def test_a_subscription_that_has_ended_before_1970_ends_at_once(expires_at: int):
    app = application(0)
    app.handlers["subscribing"] = lambda client, event: cluster.SubscribeAnswer(
        expires_at=expires_at
    )
    async with worker_of(app).open() as worker:
        json = await worker.caller()
        await json.connect()
        assert "subscribe" in await ask(json, "subscribe", channel="a")
        assert (await pushed(json, "unsubscribe"))["code"] == 2501


@pytest.mark.parametrize("kind", ["connection", "subscription"])
async def test_what_the_server_refreshes_with_a_time_before_1970_ends(kind: str):
    """It is not asked for again and again."""
    app, soon = application(0), int(time.time()) + 1
    asked: list[int] = []

    def ended(client: Any, event: Any) -> cluster.RefreshAnswer:
        asked.append(1)
        return cluster.RefreshAnswer(-3)

    ends: dict[str, Any] = {"expires_at": soon, "refreshed_by_server": True}
    if kind == "connection":
        app.handlers["connecting"] = lambda event: cluster.ConnectAnswer("ann", **ends)
        app.handlers["refreshing"] = ended
    else:
        app.handlers["subscribing"] = lambda client, event: cluster.SubscribeAnswer(**ends)
        app.sub_refreshing(ended)
    async with worker_of(app).open() as worker:
        caller = await worker.caller()
        await caller.connect()
        if kind == "connection":
            assert (await caller.closed())[0] == 3005
        else:
            await ask(caller, "subscribe", channel="a")
            assert (await pushed(caller, "unsubscribe"))["code"] == 2501
        assert asked == [1]


@pytest.mark.parametrize("step", [0, 3600, -3600])
def test_a_time_that_is_held_is_never_that_of_no_expiry(step: int, monkeypatch: pytest.MonkeyPatch):
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + step)
    for unix in (-(10**18), -1, 1, 3600, -step or 1):
        assert 1 <= expiry_clock.from_unix(unix) < expiry_clock.now()
    assert expiry_clock.from_unix(0) == 0
