"""One client's flood is worked off in slices: others get their turn, and nothing is lost or reordered."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvloop

from cluster import Application, Connecting
from cluster.connection import CONGESTED_BYTES
from cluster.websocket.frames import FrameProtocol
from tests.harness import wire
from tests.harness.waiting import until
from tests.harness.wire import frame
from tests.unit.local_worker import LocalWorker, ask, configured, entered
from tests.unit.raw_socket import echo_at_once, raw
from tests.unit.test_accept import CONNECT, request, response

#: CPU time. Seen are 1 to 11 ms; before there were slices, these floods held the loop for one to five seconds.
LONGEST_TURN_SECONDS = 0.1


@contextlib.asynccontextmanager
async def no_long_turn() -> AsyncIterator[None]:
    """The event loop turns all the time, at this machine's pace."""
    longest, running = 0.0, True
    # As a worker does. Collecting all that the tests of this process hold takes 0.2 s and more.
    gc.collect()
    gc.freeze()

    async def watch() -> None:
        nonlocal longest
        while running:
            before = time.thread_time()
            await asyncio.sleep(0)
            # Of this thread alone: others of the machine may take the processor away.
            longest = max(longest, time.thread_time() - before)

    task = asyncio.get_running_loop().create_task(watch())
    try:
        yield
    finally:
        running = False
        await task
        gc.unfreeze()
    assert longest < LONGEST_TURN_SECONDS


async def attacker(worker: LocalWorker) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await raw(worker)
    writer.write(request())
    await response(reader)
    return reader, writer


SENDER = """
import socket, sys, threading
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20)
def drain():
    try:
        while sock.recv(1 << 20):
            pass
    except OSError:
        pass
reading = threading.Thread(target=drain, daemon=True)
reading.start()
try:
    sock.sendall(sys.stdin.buffer.read())
    sock.shutdown(socket.SHUT_WR)
except OSError:
    pass
reading.join(20)
"""


async def sender(port: int, data: bytes) -> asyncio.subprocess.Process:
    """A process that connects and sends all of this as fast as it can: one of its own fills the buffers."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SENDER, str(port), stdin=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(data)
    await process.stdin.drain()
    process.stdin.close()
    return process


def batch(methods: bytes, first: int, count: int) -> bytes:
    line = b"".join(b'{"id":%d,%b}\n' % (first + n, methods) for n in range(count))
    return frame(wire.TEXT, line[:-1])


RPC = b'"rpc":{}'
# A ping alone closes the connection; with another command it is answered with an error.
REFUSED = b'"ping":{},"rpc":{}'

FLOODS = {
    "rpc in large frames": [batch(RPC, 2 + n * 2500, 2500) for n in range(30)],
    "refused commands in large frames": [batch(REFUSED, 2 + n * 2500, 2500) for n in range(30)],
    "tiny frames": [frame(wire.TEXT, b'{"id":%d,"rpc":{}}' % n) for n in range(2, 50_000)],
    "pings of WebSocket": [frame(wire.PING, b"")] * 200_000,
    "pongs of WebSocket": [frame(wire.PONG, b"")] * 200_000,
    "unsubscribes": [
        frame(wire.TEXT, b'{"id":%d,"unsubscribe":{"channel":"a"}}' % n) for n in range(2, 40_000)
    ],
}


async def flooded(data: bytes) -> None:
    config = configured(ping_interval=300.0, command_rate_limit=0)
    async with LocalWorker(config, rpc_handlers={"": echo_at_once}).open() as worker:
        good = await entered(worker)
        async with no_long_turn():
            process = await sender(worker.port, request() + CONNECT + data)
            while process.returncode is None:
                assert "rpc" in await ask(good, "rpc", method="", data=1)
        assert worker.counters.connections_opened == 2


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_one_client_leaves_the_others_their_turn(name: str):
    # On the loop that workers run on, whose way of reading is a part of it.
    uvloop.run(flooded(b"".join(FLOODS[name])))


@pytest.mark.parametrize(
    "data",
    [
        frame(wire.PONG, b"") * 100_000,
        frame(wire.TEXT, b"", fin=False) + frame(0, b"", fin=False) * 50_000,
    ],
    ids=["pongs", "continuations"],
)
async def test_what_comes_before_the_connect_is_bounded(data: bytes):
    async with LocalWorker(configured(command_rate_limit=0)).open() as worker:
        process = await sender(worker.port, request() + data)
        async with no_long_turn():
            await until(lambda: bool(worker.counters.connections_opened), 10, "it has come")
            await until(lambda: not worker.server.clients, 10, "it has been closed")
        assert worker.counters.client_errors["3501"] == 1
        await asyncio.wait_for(process.wait(), 30)


LARGE_PUBLISHES = b"".join(
    frame(wire.TEXT, b'{"id":%d,"publish":{"channel":"a","data":"%b"}}' % (n, b"x" * 60_000))
    for n in range(2, 202)
)


async def test_a_client_whose_connect_waits_for_a_backend_is_not_read_while_large_commands_wait():
    decided = asyncio.Event()
    app = Application()

    @app.connecting
    async def connecting(event: Connecting) -> None:
        await decided.wait()

    config = configured(command_rate_limit=0)
    async with LocalWorker(config, application=app).open() as worker:
        process = await sender(worker.port, request() + CONNECT + LARGE_PUBLISHES)
        await until(lambda: bool(worker.counters.bytes_in > CONGESTED_BYTES), 10, "much waits")
        [client] = worker.server.clients
        read = -1
        while read < worker.counters.bytes_in:
            read = worker.counters.bytes_in
            for _ in range(1000):
                await asyncio.sleep(0)
        # What is congested, one read of uvloop, and the message that was too many.
        assert read < 600_000
        assert client.connection.has_waiting
        assert worker.counters.throttled["commands"] == 1
        decided.set()
        await until(lambda: worker.counters.commands["publish"] == 200, 20, "all are handled")
        await asyncio.wait_for(process.wait(), 30)


async def test_a_frame_of_many_commands_is_answered_whole_and_in_order():
    config = configured(command_rate_limit=0)
    async with LocalWorker(config, rpc_handlers={"": echo_at_once}).open() as worker:
        caller = await entered(worker)
        caller.wire.send(batch(RPC, 2, 2500))
        await caller.reply(2501)
        numbers = [one["id"] for one in caller.heard if "rpc" in one]
        assert numbers == list(range(2, 2502))


def data_of(heard: list[dict[str, Any]], channel: str) -> list[Any]:
    """The data of the publications pushed in a channel."""
    pushes = [one["push"] for one in heard if "push" in one]
    return [push["pub"]["data"] for push in pushes if push["channel"] == channel]


async def test_commands_of_all_kinds_in_one_frame_keep_their_order():
    async with LocalWorker(configured(), rpc_handlers={"": echo_at_once}).open() as worker:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="kept")
        caller.heard.clear()
        commands: list[dict[str, Any]] = []
        for place in range(100):
            channel = f"c{place}"
            commands += [
                {"subscribe": {"channel": channel}},
                {"publish": {"channel": channel, "data": place}},
                {"publish": {"channel": "kept", "data": place}},
                {"rpc": {"data": place}},
                {"unsubscribe": {"channel": channel}},
            ]
        caller.say(*({"id": number} | one for number, one in enumerate(commands, 3)))
        for number in range(3, 3 + len(commands)):
            await caller.reply(number)
        await caller.until(lambda: len(data_of(caller.heard, "kept")) == 100)
        heard = caller.heard
    replies = [one for one in heard if "push" not in one]
    assert not any("error" in one for one in replies)
    # A publish delays nothing that follows; all others are answered as they were sent.
    published = [one["id"] for one in replies if "publish" in one]
    others = [one["id"] for one in replies if "publish" not in one]
    assert published == sorted(published)
    assert others == sorted(others)
    assert len(published) + len(others) == len(commands)
    assert [one["rpc"]["data"] for one in replies if "rpc" in one] == list(range(100))
    assert data_of(heard, "kept") == list(range(100))
    at = {one.get("id"): index for index, one in enumerate(heard)}
    for place in range(100):
        # Whether it is still there when the publication comes is not promised.
        pushed = data_of(heard, f"c{place}")
        assert pushed in ([], [place])
        assert pushed == data_of(heard[at[3 + 5 * place] : at[7 + 5 * place]], f"c{place}")


async def test_several_pings_are_answered_in_order():
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await attacker(worker)
        writer.write(frame(wire.PING, b"one") + frame(wire.PING, b"two"))
        assert await reader.readexactly(10) == b"\x8a\x03one\x8a\x03two"
        writer.close()


async def test_frames_that_wait_for_their_turn_count_once_before_the_connect():
    async with LocalWorker(configured(command_rate_limit=0)).open() as worker:
        reader, writer = await attacker(worker)
        # 18 KB, of 128 KiB that are allowed.
        writer.write(frame(wire.PONG, b"") * 3000 + frame(wire.TEXT, b'{"id":1,"connect":{}}'))
        answer = await asyncio.wait_for(reader.readuntil(b'"pong":true'), 10)
        assert b'"connect"' in answer
        writer.close()


async def test_what_comes_after_the_close_frame_is_not_read_for_ever(
    monkeypatch: pytest.MonkeyPatch,
):
    """Sixteen connections sent a gigabyte in a second that was read and thrown away."""
    read = 0
    data_received = FrameProtocol.data_received

    def counted(self: FrameProtocol, data: bytes) -> None:
        nonlocal read
        # In its turn a connection gets what was read before.
        read += len(data) * (self._is_closing and not self._has_turn)
        data_received(self, data)

    monkeypatch.setattr(FrameProtocol, "data_received", counted)
    async with LocalWorker(configured()).open() as worker:
        _, writer = await attacker(worker)
        writer.write(frame(wire.TEXT, b"garbage"))
        [client] = worker.server.clients
        await until(lambda: client._is_closing, 10, "it is closed")
        for _ in range(20):
            writer.write(frame(wire.PONG, b"") * 100_000)
        await until(lambda: client not in worker.server.clients, 20, "its time is up")
        # What the transport had read before reading was stopped counts too.
        assert 0 < read < 1_000_000
