"""HTTP that a worker hands to aiohttp: bodies of many small chunks, and the heads of later requests."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from functools import partial
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from cluster.http_connection import PIECE_BYTES, LingeringConnection
from cluster.lingering import lingering_of
from cluster.websocket.accept import PendingConnection
from tests.harness.waiting import until
from tests.harness.wire import upgrade_request
from tests.unit.local_worker import LocalWorker, configured
from tests.unit.raw_socket import ended, raw
from tests.unit.test_server_api import KEY, post
from tests.unit.test_server_api import worker as api_worker


def chunked(path: str, body: bytes, more: str = "") -> bytes:
    """A request whose body has a chunk for every byte."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{more}\r\n"
    return head.encode() + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"


async def status(reader: asyncio.StreamReader) -> bytes:
    """The status of the next answer, whose body is read too."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return head.split()[1]


@pytest.mark.parametrize("count", [4096, 4097, 10_000, 20_000, 100_000])
async def test_a_body_of_many_chunks_is_answered(count: int):
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await raw(worker)
        for _ in range(2):
            writer.write(chunked("/nowhere", b"x" * count))
            assert await status(reader) == b"404"
        writer.close()


async def test_a_publication_in_many_chunks_is_published():
    async with api_worker().open() as worker:
        reader, writer = await raw(worker)
        body = json.dumps({"channel": "kept:a", "data": "x" * 30_000}).encode()
        writer.write(chunked("/api/publish", body, f"X-API-Key: {KEY}\r\n"))
        assert await status(reader) == b"200"
        writer.close()
        kept = await post(worker, "history", {"channel": "kept:a", "limit": 10})
        assert [len(one["data"]) for one in kept.json["result"]["publications"]] == [30_000]


# --- the heads of later requests ----------------------------------------------------------------

ENDLESS = b"GET /nowhere HTTP/1.1\r\nHost: x\r\n"
FIELD = b"X-%d: " + b"y" * 4000 + b"\r\n"


async def hello(request: web.Request) -> web.Response:
    return web.Response(text=str(len(await request.read())))


def with_hello() -> LocalWorker:
    local = LocalWorker(configured())
    local.routes.append(web.route("*", "/hello", hello))
    return local


async def test_a_head_that_is_too_long_is_refused_on_a_kept_alive_connection_too(
    monkeypatch: pytest.MonkeyPatch,
):
    # Of several workers in one process the first would count.
    monkeypatch.setattr(logging.getLogger("cluster.http"), "filters", [])
    async with with_hello().open() as worker:
        reader, writer = await raw(worker)
        writer.write(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await status(reader) == b"200"
        writer.write(ENDLESS)
        for number in range(40):
            writer.write(FIELD % number)
            await writer.drain()
            await asyncio.sleep(0)
        assert await status(reader) == b"431"
        assert await ended(reader) == b""
        assert worker.counters.rejected["bad_handshake"] == 1
        writer.close()


async def test_of_a_head_without_end_on_a_kept_alive_connection_little_is_read():
    async with with_hello().open() as worker:
        reader, writer = await raw(worker)
        writer.write(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await status(reader) == b"200"
        writer.write(ENDLESS)

        async def flood() -> None:
            while True:
                writer.write(b"X: " + b"y" * 60_000 + b"\r\n")
                await writer.drain()

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(flood(), 30)
        await until(lambda: not worker.acceptor.http.connections, 10, "the connection is gone")


async def test_a_head_in_one_piece_that_is_too_long_is_refused():
    async with with_hello().open() as worker:
        reader, writer = await raw(worker)
        writer.write(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await status(reader) == b"200"
        writer.write(ENDLESS + b"".join(FIELD % number for number in range(40)) + b"\r\n")
        assert await status(reader) == b"431"
        writer.close()


async def test_a_head_that_is_too_long_is_refused_after_the_answer_to_the_request_before_it():
    may_end = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        await may_end.wait()
        return web.Response(text="done")

    local = LocalWorker(configured())
    local.routes.append(web.get("/slow", slow))
    async with local.open() as worker:
        reader, writer = await raw(worker)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + ENDLESS)
        writer.write(b"".join(FIELD % number for number in range(40)))
        await until(lambda: bool(worker.acceptor.http.connections), 10, "it is handed over")
        [connection] = worker.acceptor.http.connections
        await until(lambda: bool(connection._messages), 10, "the head is refused")
        may_end.set()
        assert await status(reader) == b"200"
        assert await status(reader) == b"431"
        assert await ended(reader) == b""
        writer.close()


async def test_many_requests_in_one_piece_are_no_long_head():
    async with with_hello().open() as worker:
        reader, writer = await raw(worker)
        writer.write(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n" * 10_000)
        for _ in range(10_000):
            assert await status(reader) == b"200"
        writer.close()


async def test_a_large_body_is_no_long_head():
    async with with_hello().open() as worker:
        reader, writer = await raw(worker)
        size = 900_000
        one = b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
        for _ in range(3):
            writer.write(one + b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            assert [await status(reader) for _ in range(2)] == [b"200", b"200"]
        writer.close()


async def test_of_a_body_in_tiny_chunks_that_nobody_reads_few_are_parsed_in_a_turn(
    monkeypatch: pytest.MonkeyPatch,
):
    turn, parsed = 0, Counter[int]()
    end_of_chunk = aiohttp.StreamReader.end_http_chunk_receiving

    def counted(self: aiohttp.StreamReader) -> None:
        parsed[turn] += 1
        end_of_chunk(self)

    async with LocalWorker(configured()).open() as worker:
        loop = asyncio.get_running_loop()

        def count() -> None:
            nonlocal turn
            turn += 1
            if parsed.total() < 100_000:
                loop.call_soon(count)

        reader, writer = await raw(worker)
        writer.write(chunked("/nowhere", b""))
        assert await status(reader) == b"404"
        monkeypatch.setattr(aiohttp.StreamReader, "end_http_chunk_receiving", counted)
        loop.call_soon(count)
        writer.write(chunked("/nowhere", b"x" * 100_000))
        assert await status(reader) == b"404"
        await until(lambda: parsed.total() >= 100_000, 10, "all are thrown away")
        writer.close()
    assert max(parsed.values()) <= 4 * 1024


async def test_a_connection_whose_head_was_refused_is_nothing_but_a_socket_and_few_of_them_stay(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("cluster.lingering.MOST_LINGERING", 4)
    monkeypatch.setattr("cluster.lingering.LINGERING_SECONDS", 600.0)
    async with with_hello().open() as worker:
        refused = []
        for _ in range(6):
            reader, writer = await raw(worker)
            writer.write(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await status(reader) == b"200"
            writer.write(ENDLESS + b"".join(FIELD % number for number in range(20)))
            assert await status(reader) == b"431"
            assert await ended(reader) == b""
            refused.append(writer)
        await until(lambda: not worker.acceptor.http.connections, 10, "aiohttp knows none of them")
        assert len(lingering_of(asyncio.get_running_loop())) == 4
        for writer in refused[:2]:
            await until(partial(is_closed, writer), 10, "the first ones are closed")
        assert not any(is_closed(writer) for writer in refused[2:])
        for writer in refused:
            writer.close()


def is_closed(writer: asyncio.StreamWriter) -> bool:
    writer.write(b"x")
    return writer.transport.is_closing()


async def test_long_heads_are_parsed_in_turns_that_all_connections_share(
    monkeypatch: pytest.MonkeyPatch,
):
    # One waiting connection in a turn.
    monkeypatch.setattr("cluster.turns.SECONDS_PER_TURN", 0.0)
    turn, parsed = 0, Counter[int]()
    received = LingeringConnection._received

    def counted(self: LingeringConnection, piece: bytes) -> None:
        parsed[turn] += len(piece)
        received(self, piece)

    monkeypatch.setattr(LingeringConnection, "_received", counted)
    async with with_hello().open() as worker:
        loop = asyncio.get_running_loop()

        def count() -> None:
            nonlocal turn
            turn += 1
            if worker.acceptor.http.connections:
                loop.call_soon(count)

        connections = [await raw(worker) for _ in range(8)]
        for reader, writer in connections:
            writer.write(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await status(reader) == b"200"
        parsed.clear()
        loop.call_soon(count)
        head = ENDLESS + b"".join(FIELD % number for number in range(15)) + b"\r\n"
        for _, writer in connections:
            writer.write(head)
        for reader, writer in connections:
            assert await status(reader) == b"404"
            writer.close()
    assert parsed.total() == 8 * len(head)
    # The first piece of each does not wait.
    assert max(parsed.values()) <= 9 * PIECE_BYTES
    assert sum(size > 0 for size in parsed.values()) > 8 * (len(head) // PIECE_BYTES - 1)


async def test_long_first_heads_are_parsed_in_turns_that_all_connections_share(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("cluster.turns.SECONDS_PER_TURN", 0.0)
    turn, parsed = 0, Counter[int]()
    parse = PendingConnection._parse

    def counted(self: PendingConnection, *given: Any) -> None:
        before = self._parsed
        parse(self, *given)
        parsed[turn] += max(self._parsed - before, 0)

    monkeypatch.setattr(PendingConnection, "_parse", counted)
    async with with_hello().open() as worker:
        loop = asyncio.get_running_loop()

        def count() -> None:
            nonlocal turn
            turn += 1
            if len(worker.server._pending):
                loop.call_soon(count)

        connections = [await raw(worker) for _ in range(8)]
        await until(lambda: len(worker.server._pending) == 8, 10, "all are accepted")
        loop.call_soon(count)
        fields = b"".join(FIELD % number for number in range(15))
        head = upgrade_request("x", "/connection/websocket")[:-2] + fields + b"\r\n"
        for _, writer in connections:
            writer.write(head)
        for reader, writer in connections:
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            assert answer.startswith(b"HTTP/1.1 101 ")
            writer.close()
    assert max(parsed.values()) <= 9 * PIECE_BYTES
    assert sum(size > 0 for size in parsed.values()) > 8 * (len(head) // PIECE_BYTES - 1)


async def test_what_is_handed_to_aiohttp_no_longer_waits_for_its_request():
    async with with_hello().open() as worker:
        reader, writer = await raw(worker)
        writer.write(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await status(reader) == b"200"
        assert not len(worker.server._pending)
        assert len(worker.acceptor.http.connections) == 1
        writer.close()
        await until(lambda: not worker.acceptor.http.connections, 10, "it has ended")


async def test_of_a_body_in_tiny_chunks_that_a_handler_reads_few_are_parsed_in_a_turn(
    monkeypatch: pytest.MonkeyPatch,
):
    turn, parsed, size = 0, Counter[int](), 100_000
    end_of_chunk = aiohttp.StreamReader.end_http_chunk_receiving

    def counted(self: aiohttp.StreamReader) -> None:
        parsed[turn] += 1
        end_of_chunk(self)

    monkeypatch.setattr(aiohttp.StreamReader, "end_http_chunk_receiving", counted)
    async with with_hello().open() as worker:
        loop = asyncio.get_running_loop()

        def count() -> None:
            nonlocal turn
            turn += 1
            if parsed.total() < size:
                loop.call_soon(count)

        reader, writer = await raw(worker)
        loop.call_soon(count)
        writer.write(chunked("/hello", b"x" * size))
        assert await status(reader) == b"200"
        writer.close()
    assert parsed.total() >= size
    # Six bytes are one chunk; a second piece may be what one turn of the connections has left over.
    assert max(parsed.values()) <= 3 * PIECE_BYTES // 6
