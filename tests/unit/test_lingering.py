"""Requests whose body the server does not want: the client gets its answer, and is not read for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cluster import http_connection
from tests.harness.waiting import until
from tests.unit.local_worker import LocalWorker, configured

PIECE = b"x" * 65_536
# What the sockets between the two buffer comes on top of `LINGERING_BYTES`.
MOST_TAKEN_BYTES = 32 << 20


def request(length: int) -> bytes:
    return b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length


async def answer(reader: asyncio.StreamReader) -> bytes:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


async def test_a_body_without_end_is_answered_and_hardly_read():
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
        writer.write(request(10**12))
        assert b" 404 " in await answer(reader)
        taken = 0

        async def send() -> None:
            nonlocal taken
            while True:
                writer.write(PIECE)
                await writer.drain()
                taken += len(PIECE)

        sending = asyncio.ensure_future(send())
        await until(sending.done, 10, "the connection is closed")
        assert isinstance(sending.exception(), ConnectionError)
        assert taken < MOST_TAKEN_BYTES


async def test_after_a_body_that_nobody_wanted_the_connection_serves_the_next_request():
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
        for _ in range(3):
            writer.write(request(8 * len(PIECE)))
            for _ in range(8):
                writer.write(PIECE)
            assert b" 404 " in await answer(reader)
        writer.close()


async def test_a_body_that_does_not_come_is_waited_for_a_second():
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
        writer.write(request(10))
        assert b" 404 " in await answer(reader)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_a_client_that_leaves_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_connection, "LINGERING_SECONDS", 60.0)
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
        writer.write(request(10**12))
        assert b" 404 " in await answer(reader)
        assert requests_in_progress()
        writer.transport.abort()
        await until(lambda: not requests_in_progress(), 10, "its request has ended")


def requests_in_progress() -> int:
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return names.count("RequestHandler._handle_request")


# --- clients that do not read -------------------------------------------------------------------


async def test_a_client_that_never_reads_its_responses_is_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_connection, "STALLED_SECONDS", 0.2)
    async with LocalWorker(configured()).open() as worker:
        _reader, writer = await asyncio.open_connection("127.0.0.1", worker.port, limit=1)
        # asyncio reads twice as much as the limit and then no more.
        sending = asyncio.ensure_future(flood(writer))
        await until(sending.done, 20, "the connection is closed")
        assert isinstance(sending.exception(), ConnectionError)
        await until(lambda: not worker.acceptor.http.connections, 10, "it is gone")


async def flood(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        await writer.drain()


class Unsent:
    """A transport whose write buffer has the sizes that are given, one after the other."""

    def __init__(self, transport: asyncio.Transport, *sizes: int) -> None:
        self._transport = transport
        self._sizes = list(sizes)

    def get_write_buffer_size(self) -> int:
        return self._sizes.pop(0) if len(self._sizes) > 1 else self._sizes[0]

    def abort(self) -> None:
        self._transport.abort()


async def test_a_client_that_reads_a_little_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_connection, "STALLED_SECONDS", 0.01)
    async with LocalWorker(configured()).open() as worker:
        connection, reader, writer = await kept_alive(worker)
        unsent = Unsent(connection._socket, 5, 4, 3, 2)
        connection._socket = unsent
        connection.pause_writing()
        await until(lambda: not worker.acceptor.http.connections, 10, "at 2 it reads no more")
        assert unsent._sizes == [2]
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_a_client_that_goes_on_reading_is_not_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_connection, "STALLED_SECONDS", 0.01)
    async with LocalWorker(configured()).open() as worker:
        connection, _, writer = await kept_alive(worker)
        connection._socket = Unsent(connection._socket, 5)
        connection.pause_writing()
        watching = connection._stalled
        connection.resume_writing()
        assert watching.cancelled()
        writer.close()


async def test_a_client_that_does_not_read_the_last_response_is_closed(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(http_connection, "CLOSING_SECONDS", 0.01)
    async with LocalWorker(configured()).open() as worker:
        connection, reader, writer = await kept_alive(worker)
        unsent = Unsent(connection._socket, 5, 4, 3)
        connection._socket = unsent
        # aiohttp would close the transport, which then waits for the client.
        connection.transport = None
        connection.close()
        assert await asyncio.wait_for(reader.read(), 10) == b""
        assert unsent._sizes == [3], "it was waited for as long as it read"
        writer.close()


async def kept_alive(
    worker: LocalWorker,
) -> tuple[Any, asyncio.StreamReader, asyncio.StreamWriter]:
    """aiohttp's side of a connection that has had its answer, and the client's."""
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
    writer.write(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b" 404 " in await answer(reader)
    [connection] = worker.acceptor.http.connections
    return connection, reader, writer
