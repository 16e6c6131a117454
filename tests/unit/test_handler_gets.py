"""What handlers get of clients is opaque: each place has the text byte for byte, and no odd value breaks a list."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import orjson
import pytest
from hypothesis import given
from structlog.testing import capture_logs

import cluster
from cluster.config import Config, HttpApiConfig, TokenConfig
from cluster.errors import ClientError
from tests.harness.waiting import until
from tests.unit.json_texts import TEXTS
from tests.unit.local_worker import RECOVERABLE, Caller, LocalWorker, ask, changed, configured
from tests.unit.test_opaque_data import KEY, PROPERTY, post, send, signed
from tests.unit.test_protobuf import command
from tests.unit.test_websocket_protobuf import BY_SUBPROTOCOL, protobuf_caller

WITHIN = 10.0
#: JSON that orjson makes no value of.
UNREADABLE = [b'{"text":"cut \\ud83d"}', b"1e999"]
ODD = [
    *UNREADABLE, b"18446744073709551616", b"1.10", b'{"a":1.10,"a":2}', b'{ "a" :\t[ ] }', b"-0", b'"\\u00e9"',
]  # fmt: skip
PLACES = {
    "connecting.raw", "connecting.raw_info", "client.raw_info", "client.raw_meta", "subscribing.raw",
    "publishing.raw", "rpc", "any_rpc", "message", "rpc_from_server", "session.raw_state",
    "history.raw", "history.publisher.raw_info", "history.publisher.raw_channel_info",
    "presence.raw_info", "presence.raw_channel_info",
}  # fmt: skip


def with_tokens() -> Config:
    options = dataclasses.replace(RECOVERABLE, presence=True)
    config = configured(options=options, token=TokenConfig(hmac_secret_key=KEY))
    return changed(config, http_api=HttpApiConfig(KEY))


def listening(heard: dict[str, bytes]) -> cluster.Application:
    """An application that keeps the text of everything that its handlers get."""
    app = cluster.Application()

    @app.connecting
    def connecting(event: cluster.Connecting) -> None:
        heard["connecting.raw"], heard["connecting.raw_info"] = event.raw, event.raw_info

    @app.subscribing
    def subscribing(
        client: cluster.ApplicationClient, event: cluster.Subscribing
    ) -> cluster.SubscribeAnswer:
        heard["subscribing.raw"] = event.raw
        heard["client.raw_info"] = client.raw_info
        heard["client.raw_meta"] = client.raw_meta
        return cluster.SubscribeAnswer(info=event.raw)

    @app.publishing
    def publishing(client: cluster.ApplicationClient, event: cluster.Publishing) -> bool:
        heard["publishing.raw"] = event.raw
        return True

    @app.rpc("known", raw=True)
    async def known(client: cluster.ApplicationClient, data: bytes) -> None:
        heard["rpc"] = data
        await client.session.update(data)
        heard["session.raw_state"] = client.session.raw_state

    @app.any_rpc
    def any_rpc(client: cluster.ApplicationClient, method: str, text: bytes) -> None:
        heard["any_rpc"] = text

    @app.rpc_from_server("known", raw=True)
    def from_server(data: bytes) -> None:
        heard["rpc_from_server"] = data

    @app.message(raw=True)
    def message(client: cluster.ApplicationClient, data: bytes) -> None:
        heard["message"] = data

    return app


async def read(app: cluster.Application, heard: dict[str, bytes]) -> None:
    """Read the channel, as handlers do."""
    [publication] = (await app.history("c")).publications
    [member] = await app.presence("c")
    heard["history.raw"] = publication.raw
    assert publication.publisher is not None
    for name, one in (("history.publisher", publication.publisher), ("presence", member)):
        heard[f"{name}.raw_info"] = one.raw_info
        heard[f"{name}.raw_channel_info"] = one.raw_channel_info
        assert one.user == "ann"


def claims(text: bytes) -> str:
    return signed(b'{"sub":"ann","info":%b,"meta":{"m":%b}}' % (text, text))


async def all_places(text: bytes) -> None:
    heard: dict[str, bytes] = {}
    app = listening(heard)
    async with LocalWorker(with_tokens(), application=app).open() as worker:
        caller = await worker.caller()
        commands = [
            b'"connect":{"token":"%b","data":%%b}' % claims(text).encode(),
            b'"subscribe":{"channel":"c","data":%b}',
            b'"publish":{"channel":"c","data":%b}',
            b'"rpc":{"method":"known","data":%b}',
            b'"rpc":{"method":"other","data":%b}',
        ]
        for number, command in enumerate(commands, start=1):
            send(caller, b'{"id":%d,%b}' % (number, command % text))
            assert "error" not in await caller.reply(number)
        send(caller, b'{"send":{"data":%b}}' % text)
        await until(lambda: "message" in heard, WITHIN, "the message is handled")
        await post(worker, "rpc", b'{"method":"known","params":%b}' % text)
        await read(app, heard)
    assert heard.pop("client.raw_meta") == b'{"m":%b}' % text
    assert heard == dict.fromkeys(PLACES - {"client.raw_meta"}, text)


@pytest.mark.parametrize("text", ODD)
async def test_each_handler_gets_the_text_that_was_sent(text: bytes):
    await all_places(text)


@given(TEXTS)
@PROPERTY
def test_each_handler_gets_any_text_that_was_sent(text: bytes):
    if text != b"null":  # An info of null is none.
        asyncio.run(all_places(text))


@pytest.mark.parametrize("text", ODD)
async def test_each_handler_gets_the_text_that_a_protobuf_client_has_sent(text: bytes):
    heard: dict[str, bytes] = {}
    app = listening(heard)
    async with LocalWorker(with_tokens(), application=app).open() as worker:
        caller = await protobuf_caller(worker, headers=BY_SUBPROTOCOL, token=claims(text))
        await caller.ask(2, "subscribe", channel="c", data=text)
        await caller.ask(3, "publish", channel="c", data=text)
        await caller.ask(4, "rpc", method="known", data=text)
        await caller.ask(5, "rpc", method="other", data=text)
        caller.say(command(0, "send", data=text))
        await until(lambda: "message" in heard, WITHIN, "the message is handled")
        await read(app, heard)
    assert heard.pop("connecting.raw") == b""
    assert heard.pop("client.raw_meta") == b'{"m":%b}' % text
    places = PLACES - {"connecting.raw", "client.raw_meta", "rpc_from_server"}
    assert heard == dict.fromkeys(places, text)


# --- lists, and values that are made when they are asked for ---------------------------------


def value_of(one: Any, name: str, text: bytes) -> None:
    """An attribute is the value, or error 107 if there is none; the text is there in any case."""
    if text in UNREADABLE:
        with pytest.raises(ClientError, match="107"):
            getattr(one, name)
    else:
        assert getattr(one, name) == orjson.loads(text)


async def entered_with(worker: LocalWorker, text: bytes) -> Caller:
    caller = await worker.caller()
    await caller.connect(token=signed(b'{"sub":"ann","info":%b}' % text))
    return caller


async def test_one_odd_info_breaks_neither_presence_nor_history():
    app = cluster.Application()
    async with LocalWorker(with_tokens(), application=app).open() as worker:
        for text in ODD:
            caller = await entered_with(worker, text)
            await ask(caller, "subscribe", channel="c")
            await ask(caller, "publish", channel="c", data=1)
        await app.publish("c", 2)
        *publications, last = (await app.history("c")).publications
        assert (last.info, last.raw_info, last.publisher) == (None, b"", None)
        members = await app.presence("c")
        assert sorted(one.raw_info for one in members) == sorted(ODD)
        assert {(one.raw_channel_info, one.channel_info) for one in members} == {(b"", None)}
        assert [one.publisher.raw_info for one in publications if one.publisher] == ODD
        for one in members:
            value_of(one, "info", one.raw_info)
        for text, publication in zip(ODD, publications, strict=True):
            assert publication.raw_info.endswith(b'"conn_info":%b}' % text)
            value_of(publication.publisher, "info", text)
            if text in UNREADABLE:
                with pytest.raises(ClientError, match="107"):
                    _ = publication.info
            else:
                assert publication.info["conn_info"] == orjson.loads(text)


@pytest.mark.parametrize("text", UNREADABLE)
async def test_a_client_whose_info_is_odd_connects_to_an_application(text: bytes):
    app = cluster.Application()
    events: list[cluster.Connecting] = []
    app.connecting(events.append)
    async with LocalWorker(with_tokens(), application=app).open() as worker:
        caller = await worker.caller()
        await caller.connect(token=claims(text))
        [client] = app.clients()
        await client.session.update(text)
        for one in (events[0], client):
            assert one.raw_info == text
            value_of(one, "info", text)
        assert client.session.raw_state == text
        value_of(client.session, "state", text)


async def test_an_odd_state_is_changed_as_text():
    app = cluster.Application()
    async with LocalWorker(with_tokens(), application=app).open() as worker:
        await entered_with(worker, b"1")
        [client] = app.clients()
        for text in UNREADABLE:
            await client.session.update(text)
            with pytest.raises(ClientError, match="107"):
                await client.session.change(lambda state: state)
            changed_to = b"[%b]" % text
            assert (
                await client.session.change(lambda state: b"[%b]" % state, raw=True) == changed_to
            )
            assert client.session.raw_state == changed_to


async def test_a_message_that_has_no_value_is_counted_and_logged_and_the_next_one_is_taken():
    app = cluster.Application()
    heard: list[Any] = []
    app.message(lambda client, data: heard.append(data))
    async with LocalWorker(with_tokens(), application=app).open() as worker:
        caller = await worker.caller()
        await caller.connect()
        with capture_logs() as logged:
            send(caller, b'{"send":{"data":"cut \\ud83d"}}', b'{"send":{}}', b'{"send":{"data":2}}')
            await until(lambda: heard == [None, 2], WITHIN, "the others are handled")
        assert worker.counters.client_errors["107"] == 1
        [refused] = [one for one in logged if one["event"] == "message_refused"]
        assert (refused["log_level"], refused["code"]) == ("debug", 107)
        assert refused["client"] == app.clients()[0].id


def test_a_message_handler_is_declared_with_and_without_raw():
    for decorate in (lambda app: app.message, lambda app: app.message(raw=True)):
        app = cluster.Application()

        def handler(client: cluster.ApplicationClient, data: Any) -> None:
            """Does nothing."""

        assert decorate(app)(handler) is handler
        with pytest.raises(ValueError, match="a handler for message already"):
            decorate(app)(handler)
    with pytest.raises(TypeError, match="is for a function"):
        cluster.Application().message(raw=True)(7)  # type: ignore[type-var]
