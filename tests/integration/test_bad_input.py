"""Bad input on the wire: the exact code, counted, no traceback, and no harm to another client.

The codes are those of the protocol page; WebSocket faults carry those of RFC 6455 section 7.4.1.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.harness.client import Client
from tests.harness.cluster import Cluster
from tests.harness.processes import resident_bytes
from tests.harness.raw_client import CONNECT, Counted, RawClient, text
from tests.harness.waiting import until
from tests.harness.wire import BINARY, PING, TEXT, frame, open_wire

Json = dict[str, Any]
CONNECTED = "connected first"
FRESH = "as the first message"


def unmasked(payload: bytes) -> bytes:
    return bytes([0x81, len(payload)]) + payload


BOMB = b"[" * 30000 + b"]" * 30000
DEEP_COMMAND = b'{"id":2,"publish":{"channel":"a","data":' + b"[" * 900 + b"]" * 900 + b"}}"

# name, when, bytes on the wire, close code
CLOSES: list[tuple[str, str, bytes, int]] = [
    ("garbage", FRESH, frame(TEXT, b"\x01\x02 what is this"), 3501),
    ("garbage after connect", CONNECTED, frame(TEXT, b"}{"), 3501),
    ("half a document", CONNECTED, frame(TEXT, b'{"id":2,"publish":{"channel":"a"'), 3501),
    ("an empty message", CONNECTED, frame(TEXT, b""), 3501),
    ("only a newline", CONNECTED, frame(TEXT, b"\n"), 3501),
    ("two newlines in a row", CONNECTED, frame(TEXT, b'{"id":2,"rpc":{}}\n\n'), 3501),
    ("a list", CONNECTED, text([1, 2, 3]), 3501),
    ("a number", CONNECTED, text(7), 3501),
    ("no request key", CONNECTED, text({"id": 2, "dance": {}}), 3501),
    ("a request that is no object", CONNECTED, text({"id": 2, "publish": "a"}), 3501),
    ("a negative id", CONNECTED, text({"id": -1, "rpc": {}}), 3501),
    ("an id of text", CONNECTED, text({"id": "2", "rpc": {}}), 3501),
    ("an id beyond 32 bits", CONNECTED, text({"id": 2**32, "rpc": {}}), 3501),
    ("an id that is a fraction", CONNECTED, text({"id": 1.5, "rpc": {}}), 3501),
    ("an id that is true", CONNECTED, text({"id": True, "rpc": {}}), 3501),
    ("no id", CONNECTED, text({"publish": {"channel": "a", "data": 1}}), 3501),
    ("subscribe before connect", FRESH, text({"id": 1, "subscribe": {"channel": "a"}}), 3501),
    ("publish before connect", FRESH, text({"id": 1, "publish": {"channel": "a"}}), 3501),
    ("a pong before connect", FRESH, frame(TEXT, b"{}"), 3501),
    ("an unasked pong", CONNECTED, frame(TEXT, b"{}"), 3501),
    ("a second connect", CONNECTED, text({"id": 2, "connect": {}}), 3501),
    ("two connects in one message", FRESH, frame(TEXT, CONNECT + b"\n" + CONNECT), 3501),
    (
        "subscribe to an empty channel",
        CONNECTED,
        text({"id": 2, "subscribe": {"channel": ""}}),
        3501,
    ),
    ("subscribe to no channel", CONNECTED, text({"id": 2, "subscribe": {}}), 3501),
    ("publish to an empty channel", CONNECTED, text({"id": 2, "publish": {"data": 1}}), 3501),
    ("unsubscribe from no channel", CONNECTED, text({"id": 2, "unsubscribe": {}}), 3501),
    ("history of no channel", CONNECTED, text({"id": 2, "history": {}}), 3501),
    ("a channel that is a number", CONNECTED, text({"id": 2, "subscribe": {"channel": 5}}), 3501),
    (
        "an offset of text",
        CONNECTED,
        text({"id": 2, "subscribe": {"channel": "a", "recover": True, "offset": "x"}}),
        3501,
    ),
    (
        "an unknown delta",
        CONNECTED,
        text({"id": 2, "subscribe": {"channel": "a", "delta": "x"}}),
        3501,
    ),
    ("an empty refresh", CONNECTED, text({"id": 2, "refresh": {}}), 3501),
    ("send without a handler", CONNECTED, text({"send": {"data": 1}}), 3508),
    ("a nesting bomb", FRESH, frame(TEXT, BOMB), 3501),
    ("a nesting bomb after connect", CONNECTED, frame(TEXT, BOMB), 3501),
    ("a binary message", FRESH, frame(BINARY, CONNECT), 3501),
    ("a binary message after connect", CONNECTED, frame(BINARY, b"\x00\x01"), 3501),
    ("invalid UTF-8", FRESH, frame(TEXT, b'{"id":1,"connect":{"name":"\xff\xfe"}}'), 1007),
    ("invalid UTF-8 after connect", CONNECTED, frame(TEXT, b"\xc3\x28"), 1007),
    ("a frame over the limit", FRESH, frame(TEXT, b" " * 65537), 1009),
    ("a frame over the limit after connect", CONNECTED, frame(TEXT, b" " * 70000), 1009),
    ("a frame that announces an exabyte", CONNECTED, b"\x81\xff" + b"\x0f" * 12, 1009),
    (
        "fragments over the limit",
        CONNECTED,
        frame(TEXT, b" " * 40000, fin=False) + frame(0, b" " * 40000),
        1009,
    ),
    ("an unmasked frame", FRESH, unmasked(CONNECT), 1002),
    ("a reserved opcode", CONNECTED, frame(0x3, b"?"), 1002),
    ("a reserved bit", CONNECTED, bytes([0xC1]) + frame(TEXT, b"{}")[1:], 1002),
    ("a continuation of nothing", CONNECTED, frame(0x0, b"{}"), 1002),
    ("a ping that is too long", CONNECTED, frame(PING, b"x" * 126), 1002),
    ("a fragmented ping", CONNECTED, frame(PING, b"x", fin=False), 1002),
]


@pytest.mark.parametrize(
    ("when", "sent", "code"), [c[1:] for c in CLOSES], ids=[c[0] for c in CLOSES]
)
async def test_bad_frames_are_closed_with_their_code_and_counted(
    cluster: Cluster, neighbour: Client, when: str, sent: bytes, code: int
):
    async with (
        Counted(cluster, "app_connections_closed_total", code=str(code)),
        Counted(cluster, "app_client_errors_total", code=str(code)),
        RawClient(cluster.worker_port(0)) as client,
    ):
        if when == CONNECTED:
            await client.connected()
        client.wire.send(sent)
        assert await client.closed() == code


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


# name, command, error code
ERRORS: list[tuple[str, Json, int]] = [
    ("an unknown namespace", {"subscribe": {"channel": "nowhere:a"}}, 102),
    ("publish to an unknown namespace", {"publish": {"channel": "nowhere:a", "data": 1}}, 102),
    ("a channel that is too long", {"subscribe": {"channel": "x" * 256}}, 107),
    ("a channel that is not ASCII", {"subscribe": {"channel": "grüße"}}, 107),
    ("publish without data", {"publish": {"channel": "a"}}, 107),
    ("data nested too deep", {"publish": {"channel": "a", "data": nested(600)}}, 107),
    ("backwards from offset 0", {"history": {"channel": "a", "reverse": True, "since": {"offset": 0, "epoch": ""}}}, 107),
    ("rpc without a handler", {"rpc": {"method": "x"}}, 108),
    ("presence", {"presence": {"channel": "a"}}, 108),
    ("presence stats", {"presence_stats": {"channel": "a"}}, 108),
    ("ping beside another command", {"ping": {}, "rpc": {}}, 108),
    ("history where there is none", {"history": {"channel": "plain:a"}}, 108),
    ("history since a foreign epoch", {"history": {"channel": "a", "limit": 1, "since": {"offset": 1, "epoch": "no"}}}, 112),
]  # fmt: skip


@pytest.mark.parametrize(("command", "code"), [e[1:] for e in ERRORS], ids=[e[0] for e in ERRORS])
async def test_refused_commands_get_their_error_and_the_connection_lives(
    cluster: Cluster, neighbour: Client, command: Json, code: int
):
    async with (
        Counted(cluster, "app_client_errors_total", code=str(code)),
        RawClient(cluster.worker_port(0)) as client,
    ):
        await client.connected()
        client.wire.send(text({"id": 2, **command}))
        reply = await client.answered(2)
        assert reply["error"]["code"] == code
        assert reply["error"]["message"]
        client.wire.send(text({"id": 3, "publish": {"channel": "a", "data": 1}}))
        assert (await client.answered(3))["publish"] == {}


async def test_a_second_subscribe_is_refused_with_105_also_in_one_message(
    cluster: Cluster, neighbour: Client
):
    async with RawClient(cluster.worker_port(0)) as client:
        await client.connected()
        twice = [json.dumps({"id": n, "subscribe": {"channel": "a"}}) for n in (2, 3)]
        client.wire.send_text("\n".join(twice).encode())
        assert "subscribe" in await client.answered(2)
        assert (await client.answered(3))["error"]["code"] == 105


async def test_one_channel_too_many_is_refused_with_106(cluster: Cluster, neighbour: Client):
    async with RawClient(cluster.worker_port(0)) as client:
        await client.connected()
        many = [json.dumps({"id": n, "subscribe": {"channel": f"c{n}"}}) for n in range(2, 8)]
        client.wire.send_text("\n".join(many).encode())
        replies = [await client.answered(number) for number in range(2, 8)]
        codes = [reply.get("error", {}).get("code") for reply in replies]
        assert codes == [None] * 4 + [106] * 2


async def test_unknown_fields_are_ignored(cluster: Cluster, neighbour: Client):
    async with RawClient(cluster.worker_port(0)) as client:
        strange = {"x": [1], "type": 0, "flag": 1, "dict": "d", "profile": "p"}
        client.wire.send(text({"id": 1, "connect": strange, "z": 1}))
        assert "connect" in await client.answered(1)
        client.wire.send(text({"id": 2, "subscribe": {"channel": "a", **strange}}))
        assert "subscribe" in await client.answered(2)


async def test_an_id_that_repeats_is_answered_each_time(cluster: Cluster, neighbour: Client):
    async with RawClient(cluster.worker_port(0)) as client:
        await client.connected()
        for _ in range(3):
            client.wire.send(text({"id": 1, "publish": {"channel": "a", "data": 1}}))
        await until(
            lambda: sum("publish" in document for document in client.documents) == 3, 5, "3 replies"
        )
        assert {document["id"] for document in client.documents} == {1}


async def test_fragments_and_native_pings_between_them_are_put_together(
    cluster: Cluster, neighbour: Client
):
    async with RawClient(cluster.worker_port(0)) as client:
        client.wire.send(frame(TEXT, CONNECT[:7], fin=False) + frame(PING, b"between"))
        client.wire.send(frame(0, CONNECT[7:]))
        assert "connect" in await client.answered(1)


async def many_commands(cluster: Cluster, neighbour: Client, count: int) -> None:
    """Pipeline commands, read every answer, and measure how long the neighbour has to wait meanwhile."""
    answers = 0

    def message(opcode: int, payload: bytes) -> None:
        nonlocal answers
        answers += payload.count(b'"error"')
        if payload == b"{}":
            wire.send_text(b"{}")

    def is_answered_up_to(wanted: int) -> Callable[[], bool]:
        return lambda: answers >= wanted or wire.ended.is_set()

    wire = await open_wire(cluster.worker_port(0), on_message=message)
    wire.send_text(CONNECT)
    batch = frame(TEXT, b"\n".join([b'{"id":2,"rpc":{"method":"x"}}'] * 1000))
    assert wire.transport is not None
    wire.transport.set_write_buffer_limits(high=1)
    loop, slowest = asyncio.get_running_loop(), 0.0
    for number in range(count // 1000):
        wire.send(batch)
        await until(is_answered_up_to((number - 20) * 1000), 30, "answers")
        if number % 20 == 0:
            started = loop.time()
            await neighbour.publish("calm", number)
            slowest = max(slowest, loop.time() - started)
    await until(is_answered_up_to(count), 30, "every answer")
    assert (answers, wire.close_code) == (count, None)
    assert slowest < 1.0, "another client waited for this one"
    wire.close()


@pytest.mark.alone
async def test_many_tiny_commands_are_all_answered(cluster: Cluster, neighbour: Client):
    async with Counted(cluster, "app_commands_total", by=50_000, method="rpc"):
        await many_commands(cluster, neighbour, 50_000)


@pytest.mark.alone
async def test_refusals_leave_no_memory_behind(cluster: Cluster, neighbour: Client):
    [worker] = cluster.workers()
    # The same load first: its peak stays with the allocator, and is no leak.
    await many_commands(cluster, neighbour, 80_000)
    before = resident_bytes(worker.pid)
    await many_commands(cluster, neighbour, 80_000)
    # A hundred bytes kept per refusal would be 8 MB.
    assert resident_bytes(worker.pid) - before < 8 * 1024 * 1024


@pytest.mark.full
@pytest.mark.timeout(300)
async def test_a_million_tiny_commands_are_all_answered(cluster: Cluster, neighbour: Client):
    await many_commands(cluster, neighbour, 1_000_000)
