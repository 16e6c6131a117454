"""What handlers give is opaque: text passes as it is in both codecs, values are encoded, anything else fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

import orjson
import pytest

import cluster
from cluster.auth import ServerSubscription
from cluster.config import HttpApiConfig
from cluster.errors import ClientError
from cluster.sessions import StateInvalid
from tests.harness.waiting import until
from tests.unit.local_worker import (
    RECOVERABLE,
    Caller,
    LocalWorker,
    ask,
    changed,
    configured,
)
from tests.unit.test_handler_gets import WITHIN
from tests.unit.test_opaque_data import KEY, posted, send
from tests.unit.test_protobuf import command
from tests.unit.test_websocket_protobuf import BY_SUBPROTOCOL, ProtobufCaller, protobuf_caller

#: Where a handler, or a program, gives data.
PLACES: Final = (
    "connect data", "connect info", "connect meta", "connect sub data", "connect sub info",
    "subscribe data", "subscribe info", "publish data", "rpc", "any_rpc", "rpc_from_server",
    "send", "refresh info", "update", "change", "app.publish", "app.broadcast",
)  # fmt: skip
TEXT: Final = (
    '{ "given" :\t[1.10,18446744073709551616,1e999,"cut \\ud83d é\u2028"],"given":2}'.encode()
)
#: With what a client gets: newlines separate documents, so they are removed.
GIVEN: Final = [
    (TEXT, TEXT),
    (b'{\n"given":\n[1.0]}\n', b'{"given":[1.0]}'),
    ({"given": [1]}, b'{"given":[1]}'),
]
BROKEN: Final = [b'{"given":NaN}', b'{"given":"\xff"}', {"given": {1, 2}}]


def giving(place: str, given: Any) -> cluster.Application:
    """An application that gives this at one place."""
    app = cluster.Application()

    def at(name: str, otherwise: Any = None) -> Any:
        return given if place == name else otherwise

    @app.connecting
    def connecting(event: cluster.Connecting) -> cluster.ConnectAnswer:
        return cluster.ConnectAnswer(
            user="ann",
            info=at("connect info"),
            data={"greeting": at("connect data")},
            subs={
                "s": ServerSubscription(at("connect sub info", b""), at("connect sub data", b""))
            },
            meta=at("connect meta"),
        )

    @app.refreshing
    def refreshing(
        client: cluster.ApplicationClient, event: cluster.Refreshing
    ) -> cluster.RefreshAnswer:
        return cluster.RefreshAnswer(0, at("refresh info"))

    @app.subscribing
    def subscribing(
        client: cluster.ApplicationClient, event: cluster.Subscribing
    ) -> cluster.SubscribeAnswer:
        return cluster.SubscribeAnswer(at("subscribe data"), at("subscribe info"))

    @app.publishing
    def publishing(
        client: cluster.ApplicationClient, event: cluster.Publishing
    ) -> cluster.PublishAnswer:
        return cluster.PublishAnswer(at("publish data"))

    @app.message
    def message(client: cluster.ApplicationClient, data: Any) -> None:
        client.send(at("send", 0))

    app.rpc("known")(lambda client, data: at("rpc"))
    app.any_rpc(lambda client, method, text: at("any_rpc"))
    app.rpc_from_server("known")(lambda data: at("rpc_from_server"))
    return app


def worker_of(app: cluster.Application) -> LocalWorker:
    options = dataclasses.replace(RECOVERABLE, presence=True)
    config = changed(configured(options=options), http_api=HttpApiConfig(KEY))
    return LocalWorker(config, application=app)


async def give(app: cluster.Application, place: str, given: Any) -> None:
    """What a program does by itself."""
    [client] = app.clients()
    if place == "update":
        await client.session.update(given)
    if place == "change":
        await client.session.change(lambda _: given)
    if place == "app.publish":
        await app.publish("c", given)
    if place == "app.broadcast":
        for outcome in await app.broadcast(["c"], given):
            if isinstance(outcome, ClientError):
                raise outcome


async def use_all(caller: Caller) -> None:
    """A client's part; each answer may be an error."""
    await ask(caller, "subscribe", channel="c")
    await ask(caller, "publish", channel="c", data=0)
    await ask(caller, "rpc", method="known")
    await ask(caller, "rpc", method="other")
    await ask(caller, "refresh", token="any")
    await ask(caller, "presence", channel="c")
    await ask(caller, "presence", channel="s")
    send(caller, b'{"send":{"data":0}}')


async def use_all_with_protobuf(caller: ProtobufCaller) -> None:
    await caller.ask(2, "subscribe", channel="c")
    await caller.ask(3, "publish", channel="c", data=b"0")
    await caller.ask(4, "rpc", method="known")
    await caller.ask(5, "rpc", method="other")
    await caller.ask(6, "refresh", token="any")
    await caller.ask(7, "presence", channel="c")
    await caller.ask(8, "presence", channel="s")
    caller.say(command(0, "send", data=b"0"))


def said(caller: Caller | ProtobufCaller) -> bytes:
    if isinstance(caller, Caller):
        return b"\n".join(caller.lines)
    return b"\n".join(one.SerializeToString() for one in caller.heard)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("given", "wanted"), GIVEN)
@pytest.mark.parametrize("codec", ["json", "protobuf"])
async def test_what_is_given_reaches_the_client(codec: str, place: str, given: Any, wanted: bytes):
    app = giving(place, given)
    async with worker_of(app).open() as worker:
        if codec == "json":
            caller: Caller | ProtobufCaller = await worker.caller()
            assert isinstance(caller, Caller)
            await caller.connect()
            await use_all(caller)
        else:
            caller = await protobuf_caller(worker, headers=BY_SUBPROTOCOL)
            await use_all_with_protobuf(caller)
        await give(app, place, given)
        if place == "connect meta":
            assert app.clients()[0].raw_meta == wanted
            assert wanted not in said(caller)
        elif place == "rpc_from_server":
            _, answer = await posted(worker, "rpc", b'{"method":"known"}')
            assert answer == b'{"result":{"data":%b}}' % wanted
        else:
            await caller.until(lambda: wanted in said(caller))
        assert worker.counters.errors["handler"] == 0


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("given", BROKEN)
async def test_what_is_no_json_reaches_no_client_and_is_the_fault_of_the_handler(
    place: str, given: Any
):
    app = giving(place, given)
    async with worker_of(app).open() as worker:
        caller = await worker.caller()
        if place.startswith("connect"):
            caller.say({"id": 1, "connect": {}})
            assert (await caller.reply(1))["error"]["code"] == 100
        else:
            await caller.connect()
            await use_all(caller)
        is_program = place in {"update", "change", "app.publish", "app.broadcast"}
        if is_program:
            with pytest.raises((ClientError, StateInvalid)):
                await give(app, place, given)
        if place == "rpc_from_server":
            _, answer = await posted(worker, "rpc", b'{"method":"known"}')
            assert orjson.loads(answer)["error"]["code"] == 100
        if not is_program:
            failures = worker.counters.errors
            await until(lambda: failures["handler"] >= 1, WITHIN, "the fault is counted")
        assert b"given" not in said(caller)


@pytest.mark.parametrize(
    "answer",
    [
        cluster.ConnectAnswer(meta=b"[1]"), cluster.ConnectAnswer(meta=1),  # type: ignore[arg-type]
        cluster.ConnectAnswer(data={"cut \ud83d": 1}), cluster.ConnectAnswer(data={1: 1}),  # type: ignore[dict-item]
        cluster.ConnectAnswer(user="cut \ud83d"), cluster.ConnectAnswer(data=b"{}"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
async def test_an_answer_to_a_connect_that_cannot_be_sent_is_the_fault_of_the_handler(
    answer: cluster.ConnectAnswer,
):
    app = cluster.Application()
    app.connecting(lambda event: answer)
    async with worker_of(app).open() as worker:
        caller = await worker.caller()
        caller.say({"id": 1, "connect": {}})
        assert (await caller.reply(1))["error"]["code"] == 100
        assert worker.counters.errors["handler"] == 1


@pytest.mark.parametrize("tags", [{"n": 1}, {1: "n"}, {"cut": "\ud83d"}, {"\ud83d": "cut"}, ["n"]])
async def test_tags_that_are_no_text_are_refused_and_break_no_history(tags: Any):
    app = cluster.Application()
    async with worker_of(app).open():
        with pytest.raises(ClientError, match="107"):
            await app.publish("c", 1, tags=tags)
        await app.publish("c", 2, tags={"é": "\n"})
        assert [one.tags for one in (await app.history("c")).publications] == [{"é": "\n"}]


@pytest.mark.parametrize(
    ("error", "code"), [(cluster.ApplicationError, 400), (cluster.ApplicationDisconnect, 4000)]
)
def test_the_text_of_an_error_that_cannot_be_sent_is_refused_where_it_is_made(
    error: Callable[[int, str], Exception], code: int
):
    with pytest.raises(ValueError, match="surrogates"):
        error(code, "cut \ud83d")
