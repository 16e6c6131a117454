"""A client that sends too much, or that sends and does not read, is slowed down, and closed if it goes on."""

from __future__ import annotations

import asyncio
import socket
import time
from functools import partial
from typing import Any

import orjson
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from cluster.connection import COMMANDS_PER_TURN
from cluster.turns import Turns, WaitingConnection
from cluster.websocket import command_rate
from cluster.websocket.command_rate import CommandRate
from tests.harness import wire
from tests.harness.waiting import until
from tests.harness.wire import frame, upgrade_request
from tests.unit.local_worker import Caller, LocalWorker, ask, configured, entered
from tests.unit.raw_socket import echo_at_once, raw

CONNECT = frame(wire.TEXT, b'{"id":1,"connect":{}}')


def rpcs(first: int, count: int) -> bytes:
    lines = [orjson.dumps({"id": first + n, "rpc": {"data": n}}) for n in range(count)]
    return b"\n".join(lines)


def limited(rate: int, burst: int, **client: Any) -> LocalWorker:
    config = configured(command_rate_limit=rate, command_burst=burst, **client)
    return LocalWorker(config, rpc_handlers={"": echo_at_once})


def refused(caller: Caller) -> list[dict[str, Any]]:
    return [one for one in caller.heard if "error" in one]


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The connections that have waited for a turn of the event loop."""
    found: list[object] = []
    add = Turns.add

    def noted(turns: Turns, connection: WaitingConnection) -> None:
        found.append(connection)
        add(turns, connection)

    monkeypatch.setattr(Turns, "add", noted)
    return found


def has_a_token(client: Any) -> bool:
    now = time.monotonic()
    return bool(client._rate.allows(client._rate.full_at(client._full_at, 1, now), now))


# --- the bucket ------------------------------------------------------------------------------


@given(
    rate=st.integers(1, 1000),
    burst=st.integers(1, 2000),
    steps=st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(1, COMMANDS_PER_TURN)), max_size=60),
)
def test_no_schedule_gets_more_than_the_burst_and_the_rate(
    rate: int, burst: int, steps: list[tuple[float, int]]
):
    bucket = CommandRate(rate, burst)
    now = 1000.0
    full_at = bucket.full_at(0.0, bucket.slice, now)
    taken, began = bucket.slice, now
    for pause, most in steps:
        now += pause
        tokens = min(most, bucket.slice)
        after = bucket.full_at(full_at, tokens, now)
        if bucket.allows(after, now):
            full_at, taken = after, taken + tokens
        else:
            assert 0 < bucket.delay(full_at, 1, now) <= max(1.6, 0.25, 1 / rate) + 0.01
        assert taken <= burst + rate * (now - began) + bucket.slice + 1e-6


@given(rate=st.integers(1, 1000), burst=st.integers(1, 2000))
def test_after_its_delay_a_connection_may_go_on(rate: int, burst: int):
    bucket = CommandRate(rate, burst)
    full_at = bucket.emptied(bucket.full_at(0.0, 10 * burst + bucket.slice, 50.0), 50.0)
    later = 50.0 + bucket.delay(full_at, 1, 50.0)
    assert bucket.allows(bucket.full_at(full_at, bucket.slice, later), later)


# --- commands --------------------------------------------------------------------------------


async def test_what_apps_do_is_never_refused():
    async with LocalWorker(configured(), rpc_handlers={"": echo_at_once}).open() as worker:
        caller = await worker.caller()
        commands: list[dict[str, Any]] = [{"id": 1, "connect": {}}]
        for number in range(128):
            channel = f"c{number}"
            commands += [
                {"id": 3 * number + 2, "subscribe": {"channel": channel}},
                {"id": 3 * number + 3, "history": {"channel": channel, "limit": 1}},
                {"id": 3 * number + 4, "publish": {"channel": channel, "data": number}},
            ]
        caller.say(*commands)
        for command in commands:
            await caller.reply(command["id"])
        assert refused(caller) == []
        # More commands than may wait come before the answer to the connect: that pauses them for a moment.
        assert worker.counters.throttled == {"command_rate": 0, "commands": 1, "output": 0}


async def test_a_client_that_reads_between_its_commands_never_waits_for_a_turn(
    waited: list[object],
):
    async with limited(0, 1).open() as worker:
        caller = await entered(worker)
        for number in range(2, 2 + 20 * COMMANDS_PER_TURN, 4):
            caller.wire.send_text(rpcs(number, 4))
            await caller.reply(number + 3)
        assert waited == []


async def test_a_client_that_reads_between_its_commands_is_held_to_the_rate_too():
    async with limited(20, 40).open() as worker:
        caller = await entered(worker)
        began = time.monotonic()
        count = 40 + worker.server.rate.slice + 2
        for number in range(2, 2 + count):
            caller.wire.send_text(rpcs(number, 1))
            await caller.reply(number)
        handled = count - len(refused(caller))
        assert refused(caller)
        assert handled <= 40 + 20 * (time.monotonic() - began) + worker.server.rate.slice


async def test_a_command_above_the_burst_is_answered_with_111_and_the_others_later():
    async with limited(200, 100).open() as worker:
        caller = await entered(worker)
        caller.wire.send_text(rpcs(2, 150))
        for number in range(2, 152):
            await caller.reply(number)
        errors = refused(caller)
        assert errors
        assert all(
            one["error"] == {"code": 111, "message": "too many requests", "temporary": True}
            for one in errors
        )
        assert len(errors) == worker.counters.client_errors["111"]
        assert len(errors) == worker.counters.throttled["command_rate"]
        assert [one["id"] for one in caller.heard if one.get("id", 0) > 1] == list(range(2, 152))
        assert "rpc" in await ask(caller, "rpc", data=1)


@pytest.mark.parametrize("method", ["rpc", "history", "presence", "unsubscribe", "publish"])
async def test_a_client_that_goes_on_is_closed_with_3013(method: str):
    async with limited(40, 40).open() as worker:
        caller = await entered(worker)
        lines = [b'{"id":%d,"%b":{"channel":"a"}}' % (n, method.encode()) for n in range(2, 1000)]
        caller.wire.send_text(b"\n".join(lines))
        assert await caller.closed() == (3013, "too many requests")
        assert worker.counters.client_errors["3013"] == 1
        # The burst, what the rate allows in the five seconds of all delays, and what is refused.
        assert sum(worker.counters.commands.values()) < 40 + 40 * 10


async def test_refusals_are_forgotten_when_the_client_was_quiet(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command_rate, "LAST_DELAY_SECONDS", 0.0)
    async with limited(400, 4).open() as worker:
        caller = await entered(worker)
        [client] = worker.server.clients
        for turn in range(20):
            first = 2 + turn * 8
            caller.wire.send_text(rpcs(first, 8))
            for number in range(first, first + 8):
                await caller.reply(number)
            await until(lambda: time.monotonic() > client._full_at, 10, "its bucket is full")
        assert worker.counters.throttled["command_rate"] > command_rate.MOST_REFUSALS
        assert not caller.wire.ended.is_set()


async def test_a_client_that_was_not_refused_for_a_while_is_not_closed_for_what_was_long_ago(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(command_rate, "LAST_DELAY_SECONDS", 0.0)
    async with limited(400, 4).open() as worker:
        caller = await entered(worker)
        [client] = worker.server.clients
        number = 2
        for _ in range(2 * command_rate.MOST_REFUSALS):
            caller.wire.send_text(rpcs(number, 8))
            await caller.reply(number + 7)
            number += 8
            # It is never quiet: one command after the other, as fast as is allowed.
            while time.monotonic() <= client._refused_until:
                caller.wire.send_text(rpcs(number, 1))
                await caller.reply(number)
                number += 1
                await until(partial(has_a_token, client), 10, "one more is allowed")
        assert worker.counters.throttled["command_rate"] > command_rate.MOST_REFUSALS
        assert not caller.wire.ended.is_set()


async def test_a_client_that_reads_between_its_commands_does_not_overtake_those_that_wait(
    waited: list[object], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Turns, "are_taken", True)
    async with limited(0, 1).open() as worker:
        caller = await entered(worker)
        for number in range(2, 2 + 2 * COMMANDS_PER_TURN):
            caller.wire.send_text(rpcs(number, 1))
            await caller.reply(number)
        assert waited


async def test_0_turns_the_limit_off():
    async with limited(0, 1).open() as worker:
        caller = await entered(worker)
        caller.wire.send_text(rpcs(2, 2000))
        await caller.reply(2001)
        assert refused(caller) == []


# --- frames ----------------------------------------------------------------------------------


FRAMES = {
    "pings": frame(wire.PING, b"x") * 20_000,
    "pongs": frame(wire.PONG, b"") * 20_000,
    "continuations": frame(wire.TEXT, b"", fin=False) + frame(0, b"", fin=False) * 60_000,
    "fragments": b"".join(
        [
            frame(wire.TEXT, b"", fin=False),
            frame(0, b" ", fin=False) * 400,
            frame(0, b'{"id":2,"rpc":{}}'),
        ]
        * 200
    ),
}


async def flooded(data: bytes) -> None:
    async with limited(300, 1000).open() as worker:
        good = await entered(worker)
        _, writer = await raw(worker)
        writer.write(upgrade_request("x", "/connection/websocket") + CONNECT + data)
        # The client's own unsent bytes are refused with a reset, which hides the close frame from this end.
        await until(lambda: worker.counters.connections_closed["3013"] == 1, 15, "it is closed")
        await until(lambda: len(worker.server.clients) == 1, 10, "its socket is closed")
        writer.transport.abort()
        assert "rpc" in await ask(good, "rpc", data=1)


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("loop", [asyncio, uvloop], ids=["asyncio", "uvloop"])
def test_a_flood_of_frames_is_closed_with_3013(name: str, loop: Any):
    loop.run(flooded(FRAMES[name]))


async def answered(caller: Caller, count: int) -> None:
    await caller.until(lambda: sum("rpc" in one for one in caller.heard) >= count)


async def test_a_message_in_many_fragments_is_received():
    async with limited(300, 1000).open() as worker:
        caller = await entered(worker)
        text = orjson.dumps({"id": 2, "rpc": {"data": "x" * 60_000}})
        pieces = [text[at : at + 1000] for at in range(0, len(text), 1000)]
        for number in range(40):
            caller.wire.send(frame(wire.TEXT, pieces[0], fin=False))
            for piece in pieces[1:-1]:
                caller.wire.send(frame(0, piece, fin=False))
            caller.wire.send(frame(0, pieces[-1]))
            await answered(caller, number + 1)
        assert sum(worker.counters.throttled.values()) == 0


async def test_pings_with_payload_over_a_long_life_are_no_fragments():
    async with limited(0, 1).open() as worker:
        caller = await entered(worker)
        for _ in range(3000):
            caller.wire.send(frame(wire.PING, b"x" * 125))
        assert "rpc" in await ask(caller, "rpc", data=1)


# --- a client that sends and does not read ---------------------------------------------------


MESSAGES, MESSAGE_BYTES = 100, 60_000


async def blocked() -> None:
    async with limited(300, 1000, queue_max_size=4 * 2**20).open() as worker:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", worker.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
        writer.write(upgrade_request("x", "/connection/websocket") + CONNECT)
        for number in range(2, 2 + MESSAGES):
            data = orjson.dumps({"id": number, "rpc": {"data": "x" * MESSAGE_BYTES}})
            writer.write(frame(wire.TEXT, data))
        await until(lambda: worker.counters.throttled["output"] == 1, 10, "its output is full")
        [client] = worker.server.clients
        handled = worker.counters.commands["rpc"]
        assert handled < MESSAGES
        good = await entered(worker)
        for number in range(10):
            assert "rpc" in await ask(good, "rpc", data=number)
        assert worker.counters.commands["rpc"] == handled + 10
        assert client in worker.server.clients
        received = b""
        while b'{"id":%d,"rpc"' % (1 + MESSAGES) not in received[-2 * MESSAGE_BYTES :]:
            received += await asyncio.wait_for(reader.read(2**16), 10)
        assert received.count(b'"rpc"') == MESSAGES
        assert worker.counters.slow_consumers == 0
        writer.close()


@pytest.mark.parametrize("loop", [asyncio, uvloop], ids=["asyncio", "uvloop"])
def test_commands_wait_while_the_client_does_not_read_and_go_on_when_it_does(loop: Any):
    loop.run(blocked())


async def stalled() -> None:
    """The limit of unsent bytes holds also while commands wait for the output."""
    async with limited(300, 1000, queue_max_size=2**20).open() as worker:
        good = await entered(worker)
        reader, writer = await raw(worker)
        writer.write(
            upgrade_request("x", "/connection/websocket")
            + CONNECT
            + frame(wire.TEXT, b'{"id":2,"subscribe":{"channel":"a"}}')
        )
        await until(lambda: "a" in worker.node.hub.channels, 10, "it has subscribed")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        number = 0
        while not worker.counters.throttled["output"]:
            number += 1
            await ask(good, "publish", channel="a", data="x" * MESSAGE_BYTES)
            writer.write(frame(wire.TEXT, b'{"id":%d,"rpc":{}}' % (2 + number)))
        while not worker.counters.slow_consumers:
            number += 1
            await ask(good, "publish", channel="a", data="x" * MESSAGE_BYTES)
        assert worker.counters.connections_closed["3008"] == 1
        writer.transport.abort()
        del reader


@pytest.mark.parametrize("loop", [asyncio, uvloop], ids=["asyncio", "uvloop"])
def test_a_client_that_never_reads_is_closed_with_3008_all_the_same(loop: Any):
    loop.run(stalled())
