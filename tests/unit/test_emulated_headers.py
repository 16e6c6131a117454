"""Headers that a client sends in its connect command: named ones reach backends and applications."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from cluster.application import (
    Application,
    ApplicationClient,
    ConnectAnswer,
    Connecting,
    Subscribing,
)
from cluster.application.emulated_headers import MOST_BYTES
from cluster.config.proxy_options import ProxyHttpOptions
from cluster.import_config.conversion import convert
from cluster.proxy import proxy_application
from tests.unit.local_worker import LocalWorker, ask, changed, configured, entered
from tests.unit.test_config import INSECURE, mistakes
from tests.unit.test_import_config import read
from tests.unit.test_proxies import Backend, a_backend, proxied
from tests.unit.test_websocket_protobuf import BY_SUBPROTOCOL, protobuf_caller

#: Those that `worker_with` names in `emulated_headers`; HEADERS of test_proxies stand in `http_headers`.
NAMED = ("Authorization", "x-team")
OURS = ("authorization", "x-team", "cookie", "x-other")


@contextlib.asynccontextmanager
async def worker_with(
    backend: Backend, *, static: Mapping[str, str] | None = None
) -> AsyncIterator[LocalWorker]:
    """A worker whose proxies pass the emulated headers `NAMED` on, but not that of publishing."""
    config = proxied(backend.port)
    backend.answers["connect"] = {"result": {"user": "42"}}

    def naming(options: Any) -> Any:
        http = ProxyHttpOptions(tuple((static or {}).items()))
        return dataclasses.replace(options, emulated_headers=NAMED, http=http)

    proxy = config.client.proxy
    proxy = dataclasses.replace(proxy, connect=naming(proxy.connect), refresh=naming(proxy.refresh))
    channel = dataclasses.replace(
        config.channel.proxy, subscribe=naming(config.channel.proxy.subscribe)
    )
    config = changed(
        config,
        client=dataclasses.replace(config.client, proxy=proxy),
        channel=dataclasses.replace(config.channel, proxy=channel),
        rpc=dataclasses.replace(config.rpc, proxy=naming(config.rpc.proxy)),
    )
    async with LocalWorker(config, application=proxy_application(config)).open() as worker:
        yield worker


def got(backend: Backend, kind: str) -> dict[str, str]:
    """Which of the headers the backend has got with the last event of a kind."""
    [*_, headers] = [one for asked, _, one in backend.asked if asked == kind]
    return {name.lower(): value for name, value in headers.items() if name.lower() in OURS}


SENT = {"authorization": "Bearer x", "X-Team": "blue", "Cookie": "forged=1", "X-Other": "y"}
PASSED_ON = {"authorization": "Bearer x", "x-team": "blue"}


async def test_headers_of_a_json_connect_reach_the_proxies_that_name_them_with_every_event():
    async with a_backend() as backend, worker_with(backend) as worker:
        caller = await entered(worker, headers=SENT)
        await ask(caller, "subscribe", channel="asked:a")
        await ask(caller, "rpc", method="add", data=1)
        await ask(caller, "publish", channel="asked:a", data=1)
        for kind in ("connect", "subscribe", "rpc"):
            assert got(backend, kind) == PASSED_ON
        assert got(backend, "publish") == {}


async def test_headers_of_a_protobuf_connect_reach_the_proxies_that_name_them_with_every_event():
    async with a_backend() as backend, worker_with(backend) as worker:
        caller = await protobuf_caller(worker, headers=BY_SUBPROTOCOL, emulated=SENT)
        await caller.ask(2, "subscribe", channel="asked:a")
        await caller.ask(3, "rpc", method="add", data=b"1")
        for kind in ("connect", "subscribe", "rpc"):
            assert got(backend, kind) == PASSED_ON


async def test_a_header_of_the_handshake_has_precedence_over_an_emulated_one():
    async with a_backend() as backend, worker_with(backend) as worker:
        caller = await worker.caller(headers={"X-Team": "red"})
        await caller.connect(headers={"X-Team": "blue"})
        assert got(backend, "connect") == {"x-team": "red"}


async def test_a_header_that_the_proxy_sends_always_has_precedence_over_an_emulated_one():
    async with (
        a_backend() as backend,
        worker_with(backend, static={"AUTHORIZATION": "of the proxy"}) as worker,
    ):
        await entered(worker, headers={"authorization": "forged"})
        assert got(backend, "connect") == {"authorization": "of the proxy"}
        [(_, _, headers)] = backend.asked
        assert "forged" not in headers.values()


@pytest.mark.parametrize(
    "value",
    ["a\r\nX-Admin: 1", "a\nb", "a\x00b", "x" * MOST_BYTES],
    ids=["another header", "a line", "a zero", "too long"],
)
async def test_an_emulated_header_that_cannot_be_sent_on_is_refused_with_107(value: str):
    async with a_backend() as backend, worker_with(backend) as worker:
        caller = await worker.caller()
        caller.say({"id": 1, "connect": {"headers": {"Authorization": value}}})
        assert (await caller.reply(1))["error"]["code"] == 107
        assert backend.asked == []


async def test_the_longest_emulated_headers_are_passed_on_and_one_more_byte_is_not():
    async with a_backend() as backend, worker_with(backend) as worker:
        value = "x" * (MOST_BYTES - len("authorization"))
        caller = await entered(worker, headers={"Authorization": value})
        assert got(backend, "connect") == {"authorization": value}
        caller = await worker.caller()
        caller.say({"id": 1, "connect": {"headers": {"Authorization": value + "x"}}})
        assert (await caller.reply(1))["error"]["code"] == 107


async def test_headers_that_nothing_names_are_neither_checked_nor_kept():
    async with a_backend() as backend, worker_with(backend) as worker:
        await entered(worker, headers={"X-Other": "a\r\nb", "X-More": "x" * MOST_BYTES})
        [client] = worker.server.clients
        assert dict(client.emulated_headers) == {}
        assert got(backend, "connect") == {}


@pytest.mark.parametrize("headers", [None, {}, {"Authorization": None}])
async def test_no_headers_and_null_are_none(headers: Any):
    async with a_backend() as backend, worker_with(backend) as worker:
        await entered(worker, headers=headers)
        assert got(backend, "connect").get("authorization", "") == ""


async def test_headers_that_are_no_object_of_texts_end_the_connection_with_3501():
    async with LocalWorker(configured()).open() as worker:
        caller = await worker.caller()
        caller.say({"id": 1, "connect": {"headers": {"a": 1}}})
        assert (await caller.closed())[0] == 3501


async def test_an_application_reads_the_emulated_headers_that_it_names():
    seen: list[Mapping[str, str]] = []
    app = Application(headers=["Cookie"], emulated_headers=["Authorization", "Cookie"])

    @app.connecting
    def connecting(event: Connecting) -> ConnectAnswer:
        seen.extend((event.headers, event.emulated_headers))
        return ConnectAnswer(user="42")

    @app.subscribing
    def subscribing(client: ApplicationClient, event: Subscribing) -> None:
        seen.extend((client.headers, client.emulated_headers))

    async with LocalWorker(configured(), application=app).open() as worker:
        caller = await worker.caller(headers={"Cookie": "a=1"})
        await caller.connect(headers=SENT)
        await ask(caller, "subscribe", channel="a")
    emulated = {"authorization": "Bearer x", "cookie": "forged=1"}
    assert [dict(one) for one in seen] == [{"cookie": "a=1"}, emulated] * 2


# --- options -------------------------------------------------------------------------------


def test_a_header_of_the_connection_cannot_be_emulated():
    flags: dict[str, object] = {
        "rpc.without_namespace.proxy_enabled": True,
        "rpc.proxy.endpoint": "http://127.0.0.1/rpc",
        "rpc.proxy.emulated_headers": "Content-Length",
    }
    assert set(mistakes(flags=INSECURE | flags)) == {"rpc.proxy.emulated_headers"}


def test_emulated_headers_are_taken_over_from_a_configuration_of_centrifugo():
    done = convert(
        {
            "client": {
                "proxy": {
                    "connect": {
                        "enabled": True,
                        "endpoint": "http://backend/connect",
                        "http_headers": ["Cookie"],
                        "emulated_headers": ["Authorization"],
                    }
                }
            },
            "proxies": [
                {"name": "one", "endpoint": "http://b/1", "emulated_headers": ["X-Team"]},
            ],
        }
    )
    config = read(done)
    assert config.client.proxy.connect.emulated_headers == ("Authorization",)
    assert config.proxies[0].emulated_headers == ("X-Team",)
    assert not done.lost


def test_an_import_of_http_headers_alone_says_that_emulated_ones_have_to_be_named():
    connect = {"enabled": True, "endpoint": "http://b/c", "http_headers": ["Authorization"]}
    named = {"name": "one", "endpoint": "http://b/1", "http_headers": ["X-Team"]}
    done = convert({"client": {"proxy": {"connect": connect}}, "proxies": [named]})
    for key in ("client.proxy.connect.http_headers", "proxies[0].http_headers"):
        assert "emulated_headers" in done.differs[key]
    assert read(done).client.proxy.connect.http_headers == ("Authorization",)
