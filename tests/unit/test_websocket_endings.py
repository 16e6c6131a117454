"""How connections end: pings and silence, slow readers, close handshakes, the drain, and memory."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import struct
import time
from typing import Any

import pytest

from cluster.config import ClientConfig
from cluster.connection import Connection
from cluster.errors import SERVER_UNSUBSCRIBE
from cluster.websocket.accept import PendingConnection
from cluster.websocket.client import WebSocketClient
from tests.harness import wire
from tests.harness.waiting import until
from tests.harness.wire import frame, upgrade_request
from tests.unit.local_worker import Caller, LocalWorker, configured

QUICK: dict[str, Any] = {"ping_interval": 0.5, "pong_timeout": 0.15, "stale_close_delay": 0.3}


async def empty(worker: LocalWorker) -> None:
    """Wait until the server has closed every client."""
    await until(lambda: not worker.server.clients, 10, "no client is left")


async def raw_client(
    worker: LocalWorker, path: str = ""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
    writer.write(upgrade_request("x", f"/connection/websocket{path}"))
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    return reader, writer


# --- silence ---------------------------------------------------------------------------------


async def test_a_client_that_never_connects_is_stale():
    async with LocalWorker(configured(**QUICK)).open() as worker:
        caller = await worker.caller()
        assert await caller.closed() == (3502, "stale")


async def test_a_client_whose_connect_was_refused_and_that_stays_is_stale():
    async with LocalWorker(configured(**QUICK)).open() as worker:
        caller = await worker.caller()
        worker.store.is_up = False
        caller.say({"id": 1, "connect": {}})
        await caller.reply(1)
        assert await caller.closed() == (3502, "stale")


async def test_a_client_that_does_not_pong_is_closed():
    async with LocalWorker(configured(**QUICK)).open() as worker:
        caller = await worker.caller()
        await caller.connect()
        assert await caller.closed() == (3012, "no pong")
        assert {} in caller.heard


async def test_a_client_that_pongs_stays_and_is_pinged_once_per_interval():
    async with LocalWorker(configured(**QUICK)).open() as worker:
        caller = await worker.caller()
        await caller.connect()
        began = time.monotonic()
        for count in range(1, 4):
            await caller.until(lambda count=count: caller.heard.count({}) == count)  # type: ignore[misc]
            caller.wire.send_text(b"{}")
        assert time.monotonic() - began > 1.0
        assert not caller.wire.ended.is_set()


async def test_busy_connections_are_pinged_too():
    async with LocalWorker(configured(command_rate_limit=0, **QUICK)).open() as worker:
        caller = await worker.caller()
        await caller.connect()
        number = 1
        while {} not in caller.heard:
            number += 1
            caller.say({"id": number, "rpc": {}})
            await caller.reply(number)
        caller.wire.send_text(b"{}")


async def test_a_bare_client_is_pinged_with_frames_and_may_pong_with_frames():
    async with LocalWorker(configured(**QUICK)).open() as worker:
        reader, writer = await raw_client(worker, "?cf_ws_frame_ping_pong=true")
        writer.write(frame(wire.TEXT, b'{"id":1,"connect":{}}'))
        await asyncio.wait_for(reader.readuntil(b"}}"), 10)
        for _ in range(3):
            heard = b""
            while b"\x89\x00" not in heard:
                heard += await asyncio.wait_for(reader.read(1024), 10)
            writer.write(frame(wire.PONG, b""))
        writer.close()


# --- slow readers ----------------------------------------------------------------------------


async def slow_client(worker: LocalWorker) -> Caller:
    caller = await worker.caller()
    await caller.connect()
    caller.say({"id": 2, "subscribe": {"channel": "a"}})
    await caller.reply(2)
    return caller


async def flood(worker: LocalWorker, stop: asyncio.Event, *, size: int = 30_000) -> None:
    """Publish into the channel until `stop` is set."""
    speaker = await worker.caller()
    await speaker.connect()
    number = 1
    while not stop.is_set():
        number += 1
        speaker.say({"id": number, "publish": {"channel": "a", "data": "x" * size}})
        await speaker.reply(number)


def buffered(worker: LocalWorker) -> int:
    """Most unsent bytes of any connection."""
    sizes = [
        client._transport.get_write_buffer_size()
        for client in worker.server.clients
        if client._transport is not None
    ]
    return max(sizes, default=0)


async def test_a_client_that_does_not_read_is_closed_and_the_others_do_not_notice():
    async with LocalWorker(configured(queue_max_size=65536)).open() as worker:
        slow, quick = await slow_client(worker), await slow_client(worker)
        slow.wire.stop_reading()
        stop = asyncio.Event()
        task = asyncio.ensure_future(flood(worker, stop))
        await until(lambda: bool(worker.counters.connections_closed["3008"]), 20, "a slow client")
        seen = len(quick.pubs())
        await quick.until(lambda: len(quick.pubs()) > seen + 3)
        stop.set()
        await task
        slow.wire.resume_reading()
        await asyncio.wait_for(slow.wire.ended.wait(), 10)
        assert worker.counters.slow_consumers == 1
        assert not quick.wire.ended.is_set()


async def test_a_client_that_reads_a_little_and_then_no_more_is_closed_too():
    async with LocalWorker(configured(queue_max_size=400_000)).open() as worker:
        slow = await slow_client(worker)
        slow.wire.stop_reading()
        stop = asyncio.Event()
        task = asyncio.ensure_future(flood(worker, stop))
        async with asyncio.timeout(20):
            while buffered(worker) < 300_000:
                await asyncio.sleep(0)
            # It reads a little each time before it counts as slow, and then stops for good.
            for _ in range(5):
                slow.wire.resume_reading()
                await asyncio.sleep(0.005)
                slow.wire.stop_reading()
                await asyncio.sleep(0.02)
            while not worker.counters.connections_closed["3008"]:
                assert buffered(worker) < 200_000_000, "memory grows without bound"
                await asyncio.sleep(0.01)
        stop.set()
        await task
        slow.wire.abort()


# --- close handshakes --------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_a_client_that_closes_is_answered_with_its_code(code: int):
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await raw_client(worker)
        writer.write(frame(wire.TEXT, b'{"id":1,"connect":{}}'))
        await asyncio.wait_for(reader.readuntil(b"}}"), 10)
        writer.write(frame(wire.CLOSE, struct.pack("!H", code) + b"bye"))
        rest = await asyncio.wait_for(reader.read(-1), 10)
        assert rest.endswith(b"\x88\x02" + struct.pack("!H", code))
        await empty(worker)
        assert worker.counters.connections_closed["1000"] == 1
        writer.close()


async def test_a_close_without_a_code_is_answered():
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await raw_client(worker)
        writer.write(frame(wire.CLOSE, b""))
        assert await asyncio.wait_for(reader.read(-1), 10) == b"\x88\x02\x03\xe8"
        writer.close()


def kept_by(worker: LocalWorker) -> list[object]:
    """The connections of this worker that are in memory, whatever other tests have left there."""
    gc.collect()
    return [
        one
        for one in gc.get_objects()
        if (isinstance(one, PendingConnection) and one._acceptor is worker.acceptor)
        or (isinstance(one, WebSocketClient) and one._owner is worker.server)
    ]


async def test_of_a_connection_that_has_ended_nothing_is_kept_until_its_deadline():
    # After a storm of handshakes those that have ended are many more than the open ones.
    async with LocalWorker(configured(stale_close_delay=600)).open() as worker:
        for path in ("", "?format=protobuf"):
            _, writer = await raw_client(worker, path)
            writer.write(frame(wire.CLOSE, b""))
            writer.close()
        _, writer = await asyncio.open_connection("127.0.0.1", worker.port)
        await until(lambda: len(kept_by(worker)) == 1, 10, "one more is accepted")
        writer.close()
        await until(lambda: not kept_by(worker), 10, "nothing is kept")


async def test_a_client_may_send_after_its_close_until_it_closes_the_socket():
    # nginx passes on what the client has sent, and must not find a closed socket before it has read.
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await raw_client(worker)
        writer.write(frame(wire.CLOSE, b""))
        assert await asyncio.wait_for(reader.read(-1), 10) == b"\x88\x02\x03\xe8"
        for _ in range(5):
            writer.write(frame(wire.CLOSE, b""))
            await writer.drain()
        assert len(worker.server.clients) == 1
        writer.close()
        await empty(worker)
        assert worker.counters.connections_closed["1000"] == 1


@pytest.mark.parametrize("piece", [b"", b"x" * 10_000], ids=["nothing", "more and more"])
async def test_a_client_that_does_not_close_its_socket_after_its_close_is_cut_off(piece: bytes):
    async with LocalWorker(configured()).open() as worker:
        _, writer = await raw_client(worker)
        writer.write(frame(wire.CLOSE, b""))
        began = time.monotonic()
        await until(lambda: bool(worker.counters.connections_closed["1000"]), 10, "it is taken")
        with contextlib.suppress(OSError):
            while worker.server.clients and time.monotonic() - began < 10:
                writer.write(piece)
                await asyncio.wait_for(writer.drain(), 5)
                await asyncio.sleep(0)
        await empty(worker)
        assert time.monotonic() - began < 8
        writer.close()


async def test_nothing_follows_our_close_frame():
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await raw_client(worker)
        many = b"\n".join(b'{"id":%d,"publish":{"channel":"a","data":1}}' % n for n in range(2, 50))
        writer.write(
            frame(wire.TEXT, b'{"id":1,"connect":{}}\n' + many + b'\n{"id":99,"connect":{}}')
        )
        writer.write(frame(wire.TEXT, b'{"id":100,"rpc":{}}'))
        heard = b""
        async with asyncio.timeout(10):
            while not heard.endswith(b"bad request"):
                heard += await reader.read(4096)
        writer.write(frame(wire.CLOSE, b"\x0d\xad"))
        assert await asyncio.wait_for(reader.read(-1), 10) == b""
        writer.close()


async def test_a_client_that_ignores_our_close_frame_is_cut_off():
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await raw_client(worker)
        writer.write(frame(wire.TEXT, b"garbage"))
        began = time.monotonic()
        await asyncio.wait_for(reader.read(-1), 10)
        await empty(worker)
        assert time.monotonic() - began < 5
        writer.close()


async def test_a_client_that_vanishes_leaves_everything():
    async with LocalWorker(configured()).open() as worker:
        callers = [await slow_client(worker) for _ in range(5)]
        assert worker.node.hub.subscriptions == 5
        for caller in callers:
            caller.wire.abort()
        await empty(worker)
        assert worker.node.hub.subscriptions == 0
        assert worker.node.hub.channels == {}
        assert worker.broker.heard == set()
        assert worker.counters.connections_closed["3000"] == 5


async def test_a_client_that_vanishes_while_it_subscribes_leaves_everything():
    async with LocalWorker(configured()).open() as worker:
        tasks = asyncio.all_tasks()
        for _ in range(20):
            caller = await worker.caller()
            caller.say({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "a"}})
            await asyncio.sleep(0)
            caller.wire.abort()
        await empty(worker)
        await until(lambda: asyncio.all_tasks() <= tasks, 10, "every command has ended")
        assert worker.node.hub.channels == {}
        assert worker.sessions.held == {}


async def test_publishing_to_sockets_that_have_just_been_reset_harms_no_other():
    async with LocalWorker(configured()).open() as worker:
        staying = await slow_client(worker)
        leaving = [await slow_client(worker) for _ in range(30)]
        for caller in leaving:
            caller.wire.abort()
        for number in range(3, 40):
            staying.say({"id": number, "publish": {"channel": "a", "data": number}})
        await staying.until(lambda: staying.pubs() == list(range(3, 40)))
        await staying.reply(39)


async def test_the_server_takes_a_subscription_away_on_a_live_socket():
    async with LocalWorker(configured()).open() as worker:
        caller = await slow_client(worker)
        [client] = worker.server.clients
        client.perform(client.connection.unsubscribe("a", SERVER_UNSUBSCRIBE))
        await caller.until(
            lambda: any(
                one.get("push", {}).get("unsubscribe", {}).get("code") == 2000
                for one in caller.heard
            )
        )
        assert worker.node.hub.channels == {}


# --- the drain -----------------------------------------------------------------------------------


async def test_a_drain_is_paced_over_its_window_and_closes_every_client_with_3001():
    async with LocalWorker(configured()).open() as worker:
        callers = [await worker.caller() for _ in range(40)]
        for caller in callers:
            await caller.connect()
        ends: list[float] = []
        for caller in callers:
            caller.on_end = lambda code, reason: ends.append(time.monotonic())  # type: ignore[method-assign]
            caller.wire.on_end = caller.on_end
        began, window = time.monotonic(), 3.0
        await asyncio.wait_for(worker.server.drain(window, asyncio.Event()), 30)
        took = time.monotonic() - began
        assert {(await caller.closed()) for caller in callers} == {(3001, "shutdown")}
        assert 0.7 * window < took < 2.0 * window
        fifth = window / 5
        per_fifth = [sum(1 for end in ends if n <= (end - began) / fifth < n + 1) for n in range(5)]
        assert min(per_fifth) >= 3, per_fifth


async def test_a_hurried_drain_closes_every_client_at_once():
    async with LocalWorker(configured()).open() as worker:
        callers = [await worker.caller() for _ in range(20)]
        hurry = asyncio.Event()
        drain = asyncio.ensure_future(worker.server.drain(60.0, hurry))
        await asyncio.sleep(0)
        hurry.set()
        await asyncio.wait_for(drain, 5)
        assert {(await caller.closed())[0] for caller in callers} == {3001}


async def test_a_drain_of_a_server_without_clients_is_over_at_once():
    async with LocalWorker(configured()).open() as worker:
        await asyncio.wait_for(worker.server.drain(5.0, asyncio.Event()), 1)


async def test_a_client_that_never_answers_does_not_hold_up_the_drain():
    async with LocalWorker(configured()).open() as worker:
        _, writer = await raw_client(worker)
        began = time.monotonic()
        await asyncio.wait_for(worker.server.drain(0.1, asyncio.Event()), 10)
        assert time.monotonic() - began < 3
        writer.close()


# --- memory ----------------------------------------------------------------------------------------


def living(kind: type[Any]) -> int:
    gc.collect()
    return sum(1 for one in gc.get_objects() if isinstance(one, kind))


@pytest.mark.parametrize("ending", ["close", "abort", "garbage", "ignored close"])
async def test_a_closed_connection_leaves_nothing_behind(ending: str):
    async with LocalWorker(configured(**QUICK)).open() as worker:
        before = living(WebSocketClient), living(Connection)
        for _ in range(15):
            caller = await slow_client(worker)
            if ending == "close":
                caller.wire.close()
            elif ending == "abort":
                caller.wire.abort()
            else:
                caller.wire.send_text(b"garbage")
                await caller.closed()
        await empty(worker)
        del caller
        # The timers may still refer to the last client they checked.
        await until(lambda: living(WebSocketClient) <= before[0] + 2, 10, "the clients are freed")
        await until(lambda: living(Connection) <= before[1] + 2, 10, "the connections are freed")
        assert worker.sessions.held == {}
        assert worker.node.hub.channels == {}


def test_the_default_configuration_pings_as_the_protocol_says():
    client = ClientConfig()
    assert (client.ping_interval, client.pong_timeout, client.stale_close_delay) == (25, 8, 10)
