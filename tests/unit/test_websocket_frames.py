"""Frames on a real socket: sizes, pieces, faults, pings, and what is read of them."""

from __future__ import annotations

import asyncio
import itertools
import struct
from typing import Any

import orjson
import pytest

from cluster.config import ChannelOptions, WebsocketConfig
from tests.harness import wire
from tests.harness.wire import frame, upgrade_request
from tests.unit.local_worker import HISTORY, LocalWorker, changed, configured
from tests.unit.raw_socket import echo, ended, raw

# --- frames --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(wire.TEXT, b"{"), 3501),
        (frame(wire.TEXT, b""), 3501),
        (frame(wire.TEXT, b'{"id":1,"subscribe":{"channel":"a"}}'), 3501),
        (frame(wire.TEXT, b"{}"), 3501),
        (frame(wire.TEXT, b"\xff\xfe"), 1007),
        (frame(wire.TEXT, b'{"id":1,"connect":{"data":' + b"[" * 5000 + b"]" * 5000 + b"}}"), 3501),
        (frame(wire.BINARY, b'{"id":1,"connect":{}}'), 3501),
        (frame(wire.TEXT, b"x" * 70_000), 1009),
        (frame(0x3, b""), 1002),
        (frame(0x0, b"continues nothing"), 1002),
        (b"\xf1\x80\0\0\0\0", 1002),
        (frame(wire.PING, b"x" * 126), 1002),
        (frame(wire.CLOSE, b"\x00"), 1002),
        (frame(wire.CLOSE, struct.pack("!H", 1006)), 1002),
        (frame(wire.CLOSE, struct.pack("!H", 5000)), 1002),
        (frame(wire.CLOSE, b"\x03\xe8\xff"), 1007),
        (frame(wire.TEXT, b"", fin=False) + frame(wire.TEXT, b"{}"), 1002),
        (frame(wire.TEXT, b"\xff", fin=False), 1007),
        (b"\x81\x02{}", 1002),
    ],
    ids=lambda value: value if isinstance(value, int) else "",
)
async def test_what_is_wrong_closes_with_its_code(data: bytes, code: int):
    async with LocalWorker(configured()).open() as worker:
        caller = await worker.caller()
        caller.wire.send(data)
        found, reason = await caller.closed()
        assert found == code
        assert reason
        assert sum(worker.counters.client_errors.values()) == 1


async def test_a_later_frame_that_is_not_masked_fails_the_connection_before_its_payload_comes():
    async with LocalWorker(configured()).open() as worker:
        caller = await worker.caller()
        await caller.connect()
        caller.wire.send(b"\x81\x7d")
        assert await caller.closed() == (1002, "WebSocket protocol error")
        assert worker.counters.client_errors["1002"] == 1


@pytest.mark.parametrize("pieces", [1, 2, 7])
async def test_a_message_may_have_just_as_many_bytes_as_the_limit(pieces: int):
    config = changed(configured(), websocket=WebsocketConfig(message_size_limit=1000))
    async with LocalWorker(config, rpc_handlers={"echo": echo}).open() as worker:
        caller = await worker.caller()
        await caller.connect()
        for size in (1000, 1001):
            command = b'{"id":2,"rpc":{"method":"echo","data":1}}'.ljust(size)
            cuts = [size * at // pieces for at in range(pieces + 1)]
            for at, (start, end) in enumerate(itertools.pairwise(cuts)):
                opcode = 0 if at else wire.TEXT
                caller.wire.send(frame(opcode, command[start:end], fin=end == size))
            if size == 1000:
                assert "rpc" in await caller.reply(2)
        assert await caller.closed() == (1009, "message too big")


@pytest.mark.parametrize(
    "bad", [b"\x83\x80", frame(wire.CLOSE, b"\x03\xe8"), frame(wire.TEXT, b"[")]
)
async def test_a_ping_is_answered_before_the_close_frame_and_nothing_follows_it(bad: bytes):
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await raw(worker)
        writer.write(upgrade_request("x", "/connection/websocket"))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(wire.PING, b"p") + bad + frame(wire.PING, b"q"))
        answer = await ended(reader)
        assert answer[:4] == b"\x8a\x01p\x88"
        assert len(answer) == 5 + answer[4]
        writer.close()


async def test_a_message_in_fragments_is_one_message():
    async with LocalWorker(configured()).open() as worker:
        caller = await worker.caller()
        caller.wire.send(frame(wire.TEXT, b'{"id":1,', fin=False))
        caller.wire.send(frame(wire.PING, b"in between"))
        caller.wire.send(frame(0, b'"connect":', fin=False))
        caller.wire.send(frame(0, b"{}}"))
        assert (await caller.reply(1))["connect"]["client"]


@pytest.mark.parametrize("size", [125, 126, 65535, 65536, 70_000])
async def test_a_frame_of_any_size_up_to_the_limit_is_taken_and_answered(size: int):
    config = changed(configured(), websocket=WebsocketConfig(message_size_limit=100_000))
    async with LocalWorker(config, rpc_handlers={"echo": echo}).open() as worker:
        caller = await worker.caller()
        await caller.connect()
        shell = len(orjson.dumps({"id": 2, "rpc": {"method": "echo", "data": ""}}))
        text = "x" * (size - shell)
        caller.say({"id": 2, "rpc": {"method": "echo", "data": text}})
        assert (await caller.reply(2))["rpc"]["data"] == text


async def decoded(user: str, data: bytes) -> Any:
    return orjson.loads(data)


def decoded_at_once(user: str, data: bytes) -> Any:
    return orjson.loads(data)


@pytest.mark.parametrize("handler", [decoded, decoded_at_once])
async def test_a_call_whose_result_cannot_be_written_is_still_answered(handler):
    async with LocalWorker(configured(), rpc_handlers={"echo": handler}).open() as worker:
        caller = await worker.caller()
        await caller.connect()
        deep = b"[" * 500 + b"]" * 500
        caller.wire.send_text(b'{"id":2,"rpc":{"method":"echo","data":%b}}' % deep)
        assert (await caller.reply(2))["error"]["code"] in {100, 107}
        caller.say({"id": 3, "rpc": {"method": "none"}})
        assert (await caller.reply(3))["error"]["code"] == 104


async def test_a_million_tiny_commands_are_answered_or_refused_but_never_pile_up():
    async with LocalWorker(configured(command_rate_limit=0)).open() as worker:
        caller = await worker.caller()
        await caller.connect()
        batch = b"\n".join(
            b'{"id":%d,"publish":{"channel":"a","data":1}}' % n for n in range(2, 1202)
        )
        for _ in range(10):
            caller.wire.send_text(batch)
        await caller.until(lambda: len(caller.heard) > 12_000)
        [client] = worker.server.clients
        assert not client.connection.is_congested


@pytest.mark.parametrize("options", [HISTORY, ChannelOptions()], ids=["history", "none"])
async def test_what_follows_a_subscribe_in_its_frame_is_worked_off_in_order(
    options: ChannelOptions,
):
    """A channel that the worker already has is joined at once; many of them do not make a deep stack."""
    config = configured(options=options, command_rate_limit=0)
    async with LocalWorker(config).open() as worker:
        other, caller = await worker.caller(), await worker.caller()
        await other.connect()
        other.say({"id": 2, "subscribe": {"channel": "a"}})
        await other.reply(2)
        commands: list[dict[str, Any]] = [{"id": 1, "connect": {}}]
        for number in range(2, 1202, 2):
            commands.append({"id": number, "subscribe": {"channel": "a"}})
            commands.append({"id": number + 1, "unsubscribe": {"channel": "a"}})
        caller.say(*commands)
        await caller.reply(1201)
        assert [one["id"] for one in caller.heard] == [*range(1, 1202)]
        assert not [one for one in caller.heard if "error" in one]
        [session] = [one.session for one in worker.server.clients if one.connection.commands > 2]
        assert session is not None
        assert session.received == 1200
        assert worker.node.hub.subscriptions == 1


async def test_a_refusal_between_two_subscribes_keeps_its_place():
    async with LocalWorker(configured()).open() as worker:
        other, caller = await worker.caller(), await worker.caller()
        for one in (other, caller):
            await one.connect()
        other.say(
            {"id": 2, "subscribe": {"channel": "a"}}, {"id": 3, "subscribe": {"channel": "b"}}
        )
        await other.reply(3)
        caller.say(
            {"id": 2, "subscribe": {"channel": "a"}},
            {"id": 3, "subscribe": {"channel": "not-there:c"}},
            {"id": 4, "subscribe": {"channel": "b"}},
            {"id": 5, "publish": {"channel": "a", "data": 1}},
        )
        await caller.until(lambda: caller.pubs() == [1])
        replies = [one for one in caller.heard if one.get("id", 1) > 1]
        assert [one["id"] for one in replies] == [2, 3, 4, 5]
        assert replies[1]["error"]["code"] == 102


async def test_a_fault_of_ours_in_a_subscribe_is_error_100():
    async with LocalWorker(configured()).open() as worker:
        caller = await worker.caller()
        await caller.connect()

        def broken(*_: Any) -> None:
            raise RuntimeError("a fault of ours")

        worker.node.subscriptions.prepare = broken  # type: ignore[method-assign, assignment]
        caller.say({"id": 2, "subscribe": {"channel": "a"}})
        assert (await caller.reply(2))["error"]["code"] == 100
        assert worker.counters.errors["internal"] == 1
        worker.counters.errors["internal"] = 0  # it was asked for


async def test_a_native_ping_is_answered_with_its_payload():
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await raw(worker)
        writer.write(upgrade_request("x", "/connection/websocket"))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(wire.PING, b"are you there"))
        answer = await asyncio.wait_for(reader.readexactly(2 + 13), 10)
        assert answer == b"\x8a\x0dare you there"
        writer.close()
