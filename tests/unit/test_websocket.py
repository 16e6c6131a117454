"""The WebSocket server on a real socket: handshakes, admission, frames and sessions."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import struct
from typing import Any

import pytest

from cluster.config import SessionConfig
from tests.harness import wire
from tests.harness.waiting import until
from tests.harness.wire import HandshakeRefused, frame, upgrade_request
from tests.unit.local_worker import LocalWorker, changed, configured
from tests.unit.raw_socket import QUICK, close_code, echo, ended, raw

# --- the handshake -------------------------------------------------------------------------


async def test_a_client_connects_subscribes_publishes_and_receives():
    async with LocalWorker(configured()).open() as worker:
        caller = await worker.caller()
        connected = await caller.connect(name="js")
        assert connected["client"]
        assert (connected["ping"], connected["pong"]) == (25, True)
        caller.say(
            {"id": 2, "subscribe": {"channel": "a"}},
            {"id": 3, "publish": {"channel": "a", "data": {"x": 1}}},
        )
        assert (await caller.reply(3))["publish"] == {}
        await caller.until(lambda: caller.pubs() == [{"x": 1}])
        assert (len(worker.server.clients), worker.node.hub.subscriptions) == (1, 1)


async def test_frames_right_behind_the_handshake_are_read():
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await raw(worker)
        commands = b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"a"}}'
        request = upgrade_request("x", "/connection/websocket")
        writer.write(request + frame(wire.TEXT, commands) + frame(wire.PING, b"hello"))
        heard = b""
        async with asyncio.timeout(10):
            while b'"subscribe":' not in heard or b"hello" not in heard:
                heard += await reader.read(4096)
        head, _, rest = heard.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101")
        assert b'"connect":' in rest
        writer.close()


@pytest.mark.parametrize("cut", [1, 2, 3, 7])
@pytest.mark.parametrize("is_behind_the_handshake", [True, False])
async def test_a_first_frame_that_comes_in_pieces_is_taken(cut: int, is_behind_the_handshake: bool):
    """The masking key is not zero: any of its bytes may look like an unmasked length."""
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await raw(worker)
        request = upgrade_request("x", "/connection/websocket")
        first = masked(b'{"id":1,"connect":{}}')
        if is_behind_the_handshake:
            writer.write(request + first[:cut])
            await reader.readuntil(b"\r\n\r\n")
        else:
            writer.write(request)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(first[:cut])
            await writer.drain()
            await asyncio.sleep(0.05)
        writer.write(first[cut:])
        async with asyncio.timeout(10):
            assert b'"connect":' in await reader.read(4096)
        writer.close()


async def test_an_unmasked_frame_right_behind_the_handshake_is_a_protocol_error():
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await raw(worker)
        request = upgrade_request("x", "/connection/websocket")
        writer.write(request + b'\x81\x15{"id":1,"connect":{}}')
        assert close_code(await ended(reader)) == 1002


def masked(payload: bytes) -> bytes:
    key = b"\x01\x02\x03\x04"
    mixed = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
    return bytes([0x81, 0x80 | len(payload)]) + key + mixed


async def test_an_empty_subprotocol_header_is_accepted_without_a_subprotocol():
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await raw(worker)
        headers = {"Sec-WebSocket-Protocol": ""}
        writer.write(upgrade_request("x", "/connection/websocket", headers))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 101")
        assert b"sec-websocket-protocol" not in head.lower()
        writer.close()


async def test_the_json_subprotocol_is_taken():
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await raw(worker)
        headers = {"Sec-WebSocket-Protocol": "centrifuge-json"}
        writer.write(upgrade_request("x", "/connection/websocket", headers))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert b"sec-websocket-protocol: centrifuge-json" in head.lower()
        assert b"permessage-deflate" not in head
        writer.close()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("", {"Upgrade": "h2c"}, 400),
        ("", {"Sec-WebSocket-Version": "12"}, 426),
        ("", {"Sec-WebSocket-Key": "short"}, 400),
    ],
)
async def test_a_handshake_we_cannot_serve_is_refused(
    path: str, headers: dict[str, str], status: int
):
    async with LocalWorker(configured()).open() as worker:
        with pytest.raises(HandshakeRefused) as refused:
            await worker.caller(path=path, headers=headers)
        assert refused.value.status == status
        assert worker.counters.rejected["bad_handshake"] == 1


@pytest.mark.parametrize(
    ("origin", "allowed", "comes_in"),
    [
        (None, (), True),
        ("https://evil.example", (), False),
        ("https://good.example", ("https://good.example",), True),
        ("https://GOOD.example", ("https://good.EXAMPLE",), True),
        ("https://a.good.example", ("https://*.good.example",), True),
        ("https://good.example.evil.example", ("https://good.example",), False),
        ("http://good.example", ("https://good.example",), False),
        ("null", ("https://good.example",), False),
        ("anything", ("*",), True),
        ("http://[::1]:3000", ("http://[::1]:3000",), True),
        ("http://[::1]:3000", ("http://[::1]:*",), True),
        ("http://:", ("http://[::1]",), False),
    ],
)
async def test_only_allowed_origins_come_in(
    origin: str | None, allowed: tuple[str, ...], comes_in: bool
):
    async with LocalWorker(configured(allowed_origins=allowed)).open() as worker:
        headers = {} if origin is None else {"Origin": origin}
        if comes_in:
            await (await worker.caller(headers=headers)).connect()
        else:
            with pytest.raises(HandshakeRefused) as refused:
                await worker.caller(headers=headers)
            assert refused.value.status == 403
            assert worker.counters.rejected["origin"] == 1


async def refused_with_503(worker: LocalWorker, reason: str) -> None:
    with pytest.raises(HandshakeRefused) as refused:
        await worker.caller()
    assert refused.value.status == 503
    assert int(refused.value.headers["retry-after"]) >= 1
    assert worker.counters.rejected[reason] == 1


async def test_more_new_connections_than_the_rate_are_sent_elsewhere():
    async with LocalWorker(configured(connection_rate_limit=2)).open() as worker:
        await worker.caller()
        await worker.caller()
        await refused_with_503(worker, "rate_limit")


async def test_more_connections_than_the_limit_are_sent_elsewhere():
    async with LocalWorker(configured(connection_limit=1)).open() as worker:
        first = await worker.caller()
        await refused_with_503(worker, "connection_limit")
        first.wire.abort()
        await until(lambda: not worker.server.clients, 10, "no client is left")
        await (await worker.caller()).connect()


async def test_a_worker_without_its_broker_sends_new_clients_elsewhere():
    async with LocalWorker(configured()).open() as worker:
        staying = await worker.caller()
        worker.is_ready = False
        await refused_with_503(worker, "not_ready")
        await staying.connect()


async def test_a_draining_worker_sends_new_clients_elsewhere():
    async with LocalWorker(configured()).open() as worker:
        worker.server.refuse_all()
        await refused_with_503(worker, "draining")


async def test_half_a_handshake_is_ended_in_time():
    async with LocalWorker(configured(**QUICK)).open() as worker:
        reader, writer = await raw(worker)
        writer.write(upgrade_request("x", "/connection/websocket")[:-6])
        await ended(reader)
        writer.close()


async def test_a_connection_that_says_nothing_at_all_is_ended_in_time():
    async with LocalWorker(configured(**QUICK)).open() as worker:
        reader, writer = await raw(worker)
        assert await ended(reader) == b""
        writer.close()


# --- sessions and the URL --------------------------------------------------------------------


async def test_a_session_is_resumed_by_the_url_and_by_the_connect_data():
    async with LocalWorker(configured()).open() as worker:
        first = await worker.caller()
        session = (await first.connect())["data"]["session"]
        assert (session["resumed"], session["state"]) == (False, None)
        await worker.sessions.update(session["id"], state={"a": 1})
        by_url = await worker.caller(path=f"?session={session['id']}")
        by_data = await worker.caller()
        again = (await by_url.connect())["data"]["session"]
        assert (again["id"], again["resumed"], again["state"]) == (session["id"], True, {"a": 1})
        data = {"session": session["id"]}
        assert (await by_data.connect(data=data))["data"]["session"]["resumed"]


@pytest.mark.parametrize("session", [b"%ff", b"\xff\xfe", b"%00", b"a" * 4000, "ü".encode()])
async def test_any_session_in_the_url_starts_a_new_one(session: bytes):
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await raw(worker)
        request = upgrade_request("x", "/connection/websocket?session=HERE")
        writer.write(request.replace(b"HERE", session) + frame(wire.TEXT, b'{"id":1,"connect":{}}'))
        heard = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        if heard.startswith(b"HTTP/1.1 101"):
            heard = await asyncio.wait_for(reader.readuntil(b"}}"), 10)
            assert b'"resumed":false' in heard
        else:
            assert heard.split(b" ")[1] == b"400"
        writer.close()


async def test_a_short_connection_that_left_nothing_takes_its_session_along():
    async with LocalWorker(configured()).open() as worker:
        caller = await worker.caller()
        await caller.connect()
        assert len(worker.store.sessions) == 1
        caller.wire.close()
        await caller.closed()
        await until(lambda: not worker.server.clients, 10, "no client is left")
        assert worker.store.sessions == {}


@pytest.mark.parametrize(
    ("garbage", "code"),
    [
        (frame(wire.TEXT, b"garbage"), 3501),
        (frame(wire.TEXT, b'{"id":2,"connect":{}}'), 3501),
        (frame(wire.TEXT, b'{"send":{"data":1}}'), 3508),
        (frame(wire.TEXT, b"\xff\xfe"), 1007),
        (frame(wire.BINARY, b"x"), 3501),
        (frame(wire.TEXT, b"x" * 70_000), 1009),
        (b"\xff\xff\xff\xff", 1002),
    ],
    ids=["no json", "second connect", "send", "no utf-8", "binary", "too large", "no frame"],
)
async def test_a_short_connection_that_ends_with_garbage_leaves_no_session(
    garbage: bytes, code: int
):
    async with LocalWorker(configured()).open() as worker:
        for _ in range(10):
            caller = await worker.caller()
            await caller.connect()
            caller.wire.send(garbage)
            assert (await caller.closed())[0] == code
        await until(lambda: not worker.server.clients, 10, "no client is left")
        assert worker.store.sessions == {}


async def test_a_longer_connection_leaves_its_session():
    config = changed(configured(), session=SessionConfig(short_lived=0.0))
    async with LocalWorker(config).open() as worker:
        caller = await worker.caller()
        await caller.connect()
        caller.say({"id": 2, "rpc": {}}, {"id": 3, "rpc": {}})
        await caller.reply(3)
        caller.wire.close()
        await until(lambda: not worker.server.clients, 10, "no client is left")
        [record] = worker.store.sessions.values()
        assert record.session.messages == 2


async def test_too_many_connects_in_progress_send_new_clients_elsewhere():
    client = dataclasses.replace(configured().client, connect_concurrency=2)
    async with LocalWorker(changed(configured(), client=client)).open() as worker:
        may_go_on = asyncio.Event()
        attach = worker.sessions.attach

        async def slow(*words: Any) -> Any:
            await may_go_on.wait()
            return await attach(*words)

        worker.sessions.attach = slow  # type: ignore[method-assign, assignment]
        callers = [await worker.caller() for _ in range(8)]
        for caller in callers:
            caller.say({"id": 1, "connect": {}})
        await until(lambda: worker.node.is_overrun, 10, "two connects are in progress")
        with pytest.raises(HandshakeRefused) as refused:
            await worker.caller()
        assert refused.value.status == 503
        assert worker.counters.rejected["connect_concurrency"] == 1
        may_go_on.set()
        for caller in callers:
            assert (await caller.reply(1))["connect"]["client"]
        await entered(worker)


async def entered(worker: LocalWorker) -> None:
    caller = await worker.caller()
    assert (await caller.connect())["client"]


async def test_commands_that_waited_count_as_messages_too():
    config = changed(configured(), session=SessionConfig(short_lived=0.0))
    async with LocalWorker(config).open() as worker:
        caller = await worker.caller()
        caller.say(
            {"id": 1, "connect": {}},
            {"id": 2, "subscribe": {"channel": "a"}},
            {"id": 3, "publish": {"channel": "a", "data": 1}},
        )
        await caller.reply(3)
        caller.say({"id": 4, "subscribe": {"channel": "b"}}, {"id": 5, "rpc": {}})
        await caller.reply(5)
        caller.wire.close()
        await until(lambda: not worker.server.clients, 10, "no client is left")
        [record] = worker.store.sessions.values()
        assert record.session.messages == 4


# --- the store away --------------------------------------------------------------------------


async def test_a_connect_without_the_store_is_a_temporary_error():
    async with LocalWorker(configured()).open() as worker:
        worker.store.is_up = False
        caller = await worker.caller()
        caller.say({"id": 1, "connect": {}})
        error = (await caller.reply(1))["error"]
        assert (error["code"], error["temporary"]) == (100, True)


async def test_calls_without_the_store_are_temporary_errors_and_the_client_stays():
    async with LocalWorker(configured()).open() as worker:
        caller = await worker.caller()
        await caller.connect()
        worker.store.is_up = False
        caller.say(
            {"id": 2, "publish": {"channel": "a", "data": 1}},
            {"id": 3, "history": {"channel": "a", "limit": 1}},
        )
        for number in (2, 3):
            assert (await caller.reply(number))["error"]["code"] == 100
        worker.store.is_up = True
        caller.say({"id": 4, "publish": {"channel": "a", "data": 1}})
        assert (await caller.reply(4))["publish"] == {}


# --- logs ------------------------------------------------------------------------------------


async def test_nothing_a_client_sends_is_logged_with_a_traceback(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.DEBUG):
        async with LocalWorker(configured(), rpc_handlers={"echo": echo}).open() as worker:
            for data in (
                b'{"id":1,"connect":{}}\n{"id":2,"rpc":{}}\n{"id":3,"subscribe":{"channel":[]}}',
                b'{"id":1,"connect":{}}\n{"id":2,"refresh":{"token":[]}}',
                b'{"id":1,"connect":{"data":{"session":{"a":1}}}}\n{"id":2,"send":{}}',
                b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"\\u0000"}}\n{"id":3}',
                struct.pack("!H", 1),
            ):
                caller = await worker.caller()
                caller.wire.send_text(data)
                await caller.closed()
    assert [record for record in caplog.records if record.exc_info] == []
