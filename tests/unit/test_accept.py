"""What comes before a WebSocket: whole handshakes, wrong ones, pieces, and other HTTP."""

from __future__ import annotations

import asyncio
import gc
import re

import pytest
from aiohttp import web

from cluster.websocket import handshake
from tests.harness import wire
from tests.harness.waiting import until
from tests.harness.wire import frame
from tests.unit.local_worker import LocalWorker, configured
from tests.unit.raw_socket import QUICK, ended, raw

CONNECT = frame(wire.TEXT, b'{"id":1,"connect":{}}')


def request(*, path: str = handshake.PATH, method: str = "GET", **headers: str | None) -> bytes:
    """A handshake with some headers changed, or left out when None."""
    given: dict[str, str | None] = {
        "Host": "x",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}\r\n" for name, value in given.items() if value is not None]
    return f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode()


async def answer(worker: LocalWorker, data: bytes) -> bytes:
    """Everything the server answers to a client that then only reads; b"" after a reset."""
    reader, writer = await raw(worker)
    writer.write(data)
    try:
        return await ended(reader)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def head(worker: LocalWorker, *pieces: bytes) -> str:
    """The answer's head to a request that comes in pieces."""
    reader, writer = await raw(worker)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    found = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    writer.close()
    return found.decode()


async def test_the_answer_is_that_of_the_rfc():
    async with LocalWorker(configured()).open() as worker:
        found = await head(worker, request())
    assert found == (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )


@pytest.mark.parametrize(
    "data",
    [
        request(Connection="keep-alive, Upgrade"),
        request(Upgrade="WebSocket"),
        request(Content_Length="0"),
        request(Sec_WebSocket_Protocol="chat, centrifuge-json"),
        request(Sec_WebSocket_Extensions="permessage-deflate"),
        request(path=handshake.PATH + "?"),
        request(path=handshake.PATH + "?format=json&x=%zz"),
        request().replace(b"Upgrade", b"UPGRADE").replace(b"Sec-WebSocket", b"sec-websocket"),
        b"\r\n" + request(),
        request(path="http://x" + handshake.PATH),
        request(path=handshake.PATH.replace("s", "%73")),
    ],
)
async def test_what_the_rfc_allows_comes_in(data: bytes):
    async with LocalWorker(configured()).open() as worker:
        assert (await head(worker, data)).startswith("HTTP/1.1 101 ")


async def test_a_head_may_come_in_any_pieces():
    async with LocalWorker(configured()).open() as worker:
        whole = request()
        found = await head(worker, *(whole[at : at + 1] for at in range(len(whole))))
        assert found.startswith("HTTP/1.1 101 ")
        for cut in range(1, len(whole)):
            reader, writer = await raw(worker)
            writer.write(whole[:cut])
            await asyncio.sleep(0.001)
            writer.write(whole[cut:] + CONNECT)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            assert b'"connect":' in await asyncio.wait_for(reader.readuntil(b"}}"), 10)
            writer.close()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (request(method="POST"), "the method must be GET"),
        (request(Connection=None), "send 'Connection: Upgrade'"),
        (request(Connection="close"), "send 'Connection: Upgrade'"),
        (request(Upgrade=None), "send 'Connection: Upgrade'"),
        (request(Upgrade="h2c"), "and 'Upgrade: websocket'"),
        (request(Sec_WebSocket_Version=None), "Sec-WebSocket-Version must be 13"),
        (request(Content_Length="3") + b"abc", "a handshake has no body"),
        (request(Transfer_Encoding="chunked") + b"0\r\n\r\n", "a handshake has no body"),
        (request(Transfer_Encoding="gzip"), "a handshake has no body"),
        (request(Upgrade="websoc\u212aet"), "and 'Upgrade: websocket'"),
        (request().replace(b"HTTP/1.1", b"HTTP/1.0"), "the version of HTTP must be 1.1"),
        (
            request().replace(b"\r\nSec", b"\r\nSec-WebSocket-Key: a\r\nSec", 1),
            "one Sec-WebSocket-Key",
        ),
        (request(Sec_WebSocket_Key=None), "16 bytes in base64"),
        (request(Sec_WebSocket_Key="c2hvcnQ="), "16 bytes in base64"),
        (request(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ="), "16 bytes in base64"),
        (request(Sec_WebSocket_Key="dGhl*IHNhbXBsZSBub25jZQ=="), "16 bytes in base64"),
        (request(Sec_WebSocket_Key="ü"), "16 bytes in base64"),
    ],
)
async def test_a_wrong_handshake_is_answered_with_what_is_wrong(data: bytes, says: str):
    async with LocalWorker(configured()).open() as worker:
        found = (await answer(worker, data)).decode()
        top, _, body = found.partition("\r\n\r\n")
        assert top.startswith("HTTP/1.1 400 Bad Request\r\n")
        assert "Connection: close" in top
        assert f"Content-Length: {len(body)}" in top
        assert says in body
        assert worker.counters.rejected["bad_handshake"] == 1
        assert not worker.server.clients


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(path="/"), b"404"),
        (request(path=handshake.PATH + "/more"), b"404"),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"404"),
        (
            b"POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
            b"404",
        ),
    ],
)
async def test_what_is_no_handshake_is_answered_by_aiohttp(data: bytes, status: bytes):
    async with LocalWorker(configured(**QUICK)).open() as worker:
        found = await answer(worker, data)
        assert found.split(b" ")[1] == status
        assert b"\r\nServer: Python" in found
        assert not worker.server.clients


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GARBAGE\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000, b"431"),
        (
            b"GET " + handshake.PATH.encode() + b" HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
            b"400",
        ),
        (request().replace(b"Host: x", b"Ho\0st: x"), b"400"),
    ],
)
async def test_what_is_no_http_is_refused_and_counted(data: bytes, status: bytes):
    async with LocalWorker(configured(**QUICK)).open() as worker:
        found = await answer(worker, data)
        assert found.split(b" ")[1] == status
        assert b"\r\nConnection: close\r\n" in found
        assert worker.counters.rejected["bad_handshake"] == 1
        assert not worker.server.clients


async def test_of_what_follows_a_refused_request_little_is_read():
    async with LocalWorker(configured()).open() as worker:
        _, writer = await raw(worker)
        writer.write(b"GARBAGE\r\n\r\n" * 1000)

        async def flood() -> None:
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
                await asyncio.sleep(0)

        with pytest.raises(ConnectionError):
            await flood()
        writer.close()


async def test_requests_that_match_no_route_leave_nothing_for_the_garbage_collector():
    def requests() -> int:
        return sum(isinstance(one, web.Request) for one in gc.get_objects())

    async with LocalWorker(configured()).open() as worker:
        gc.collect()
        gc.disable()
        try:
            for path in ("/nowhere", "/app/nowhere", handshake.PATH + "/more"):
                found = await answer(worker, request(path=path, method="POST", Connection="close"))
                assert found.startswith(b"HTTP/1.1 404 ")
            await until(lambda: not requests(), 10, "no request is held")
        finally:
            gc.enable()


async def test_another_version_is_answered_with_the_supported_one():
    async with LocalWorker(configured()).open() as worker:
        found = (await answer(worker, request(Sec_WebSocket_Version="8"))).decode()
        assert found.startswith("HTTP/1.1 426 Upgrade Required\r\n")
        assert "\r\nSec-WebSocket-Version: 13\r\n" in found
        assert worker.counters.rejected["bad_handshake"] == 1


async def test_a_head_that_is_too_long_is_not_waited_for():
    async with LocalWorker(configured()).open() as worker:
        reader, writer = await raw(worker)
        writer.write(f"GET {handshake.PATH} HTTP/1.1\r\nHost: x\r\n".encode())
        for number in range(100):
            writer.write(b"X-%d: %b\r\n" % (number, b"y" * 1000))
            await writer.drain()
            await asyncio.sleep(0)
        found = await ended(reader)
        assert found.startswith(b"HTTP/1.1 431 ")
        assert b"65536 bytes" in found
        assert worker.counters.rejected["bad_handshake"] == 1
        writer.close()


@pytest.mark.parametrize("is_kept_alive", [False, True])
async def test_a_cookie_of_nearly_the_limit_is_accepted(is_kept_alive: bool):
    async with with_routes(LocalWorker(configured())).open() as worker:
        reader, writer = await raw(worker)
        if is_kept_alive:
            writer.write(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await response(reader))[0].startswith(b"HTTP/1.1 200 ")
        writer.write(request(Cookie="a=" + "x" * 60_000))
        assert (await response(reader))[0].startswith(b"HTTP/1.1 101 ")
        writer.close()


async def test_an_answer_is_not_lost_with_what_was_not_read():
    async with LocalWorker(configured()).open() as worker:
        data = request(method="POST", Content_Length="2000000") + b"x" * 2_000_000
        found = await answer(worker, data)
        assert found.startswith(b"HTTP/1.1 400 ")


async def test_a_thousand_requests_in_one_piece_are_one():
    async with LocalWorker(configured(**QUICK)).open() as worker:
        found = await answer(worker, request(Upgrade=None) * 1000)
        assert found.count(b"HTTP/1.1 ") == 1
        assert worker.counters.rejected["bad_handshake"] == 1


async def test_other_http_that_does_not_end_is_ended_in_time():
    async with LocalWorker(configured(**QUICK)).open() as worker:
        for data in (
            b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
            b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
            b"GET /nowhere HTTP/1.1\r\nHost:",
        ):
            await answer(worker, data)


# --- HTTP on the same port --------------------------------------------------------------------

OTHER = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"


async def hello(request: web.Request) -> web.Response:
    return web.Response(text=f"hello {request.query.get('name', '')}")


async def response(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of the next response."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    found = re.search(rb"Content-Length: (\d+)", head)
    return head, await reader.readexactly(int(found[1])) if found else b""


def with_routes(worker: LocalWorker) -> LocalWorker:
    worker.routes.append(web.get("/hello", hello))
    return worker


async def test_routes_of_the_application_are_served_on_the_same_port_and_kept_alive():
    async with with_routes(LocalWorker(configured())).open() as worker:
        reader, writer = await raw(worker)
        for _ in range(3):
            writer.write(OTHER.replace(b"/hello", b"/hello?name=x"))
            head, body = await response(reader)
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert body == b"hello x"
        writer.close()


async def test_requests_in_one_piece_are_answered_in_order():
    async with with_routes(LocalWorker(configured())).open() as worker:
        reader, writer = await raw(worker)
        writer.write(OTHER + OTHER.replace(b"hello", b"nowhere") + OTHER)
        statuses = [(await response(reader))[0].split()[1] for _ in range(3)]
        assert statuses == [b"200", b"404", b"200"]
        writer.close()


@pytest.mark.parametrize("has_tail", [False, True])
async def test_a_handshake_on_a_kept_alive_connection_becomes_a_websocket(has_tail: bool):
    async with with_routes(LocalWorker(configured())).open() as worker:
        reader, writer = await raw(worker)
        writer.write(OTHER)
        await response(reader)
        writer.write(request() + (CONNECT if has_tail else b""))
        head, _ = await response(reader)
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        if not has_tail:
            writer.write(CONNECT)
        opcode_and_length = await reader.readexactly(2)
        assert opcode_and_length[0] == 0x81
        assert len(worker.server.clients) == 1
        writer.write(frame(wire.CLOSE, b"\x03\xe8"))
        await ended(reader)
        writer.close()
        await until(lambda: not worker.server.clients, 10, "the client has left")


async def test_a_handshake_in_one_piece_behind_another_request_becomes_a_websocket():
    async with with_routes(LocalWorker(configured())).open() as worker:
        reader, writer = await raw(worker)
        writer.write(OTHER + request() + CONNECT)
        assert (await response(reader))[0].startswith(b"HTTP/1.1 200 ")
        assert (await response(reader))[0].startswith(b"HTTP/1.1 101 ")
        assert (await reader.readexactly(2))[0] == 0x81
        writer.close()
        await until(lambda: not worker.server.clients, 10, "the client has left")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(Upgrade=None), b"400"),
        (request(Sec_WebSocket_Version="8"), b"426"),
        (request(Origin="https://elsewhere.example"), b"403"),
        (request(method="POST"), b"400"),
    ],
)
async def test_a_wrong_handshake_on_a_kept_alive_connection_is_refused_as_any(
    data: bytes, status: bytes
):
    async with with_routes(LocalWorker(configured())).open() as worker:
        reader, writer = await raw(worker)
        writer.write(OTHER)
        await response(reader)
        writer.write(data)
        assert (await response(reader))[0].split()[1] == status
        assert await ended(reader) == b""
        assert sum(worker.counters.rejected.values()) == 1
        writer.close()


async def test_a_kept_alive_connection_is_asked_to_go_elsewhere_by_a_draining_worker():
    async with with_routes(LocalWorker(configured())).open() as worker:
        reader, writer = await raw(worker)
        writer.write(OTHER)
        await response(reader)
        worker.server.refuse_all()
        writer.write(request())
        head, body = await response(reader)
        assert head.split()[1] == b"503"
        assert b"\r\nRetry-After: 1\r\n" in head
        assert body == b"this worker is shutting down\n"
        writer.close()


async def test_a_request_in_progress_is_finished_by_a_shutdown():
    started, may_end = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        started.set()
        await may_end.wait()
        return web.Response(text="done")

    worker = LocalWorker(configured())
    worker.routes.append(web.get("/hello", slow))
    async with worker.open():
        reader, writer = await raw(worker)
        writer.write(OTHER)
        await started.wait()
        # After the shutdown has begun: nothing is awaited before it.
        asyncio.get_running_loop().call_soon(may_end.set)
    head, body = await response(reader)
    assert (head.split()[1], body) == (b"200", b"done")
    assert await ended(reader) == b""
    writer.close()


async def test_a_client_that_leaves_in_the_middle_of_the_head_leaves_nothing():
    async with LocalWorker(configured(**QUICK)).open() as worker:
        _, writer = await raw(worker)
        writer.write(request()[:30])
        await until(lambda: bool(worker.server._pending), 10, "the worker has accepted")
        writer.transport.abort()
        await until(lambda: not worker.server._pending, 10, "nothing is pending")
        assert not worker.server.clients


async def test_a_body_that_is_not_compressed_as_it_says_logs_no_traceback(
    caplog: pytest.LogCaptureFixture,
):
    async with with_routes(LocalWorker(configured())).open() as worker:
        reader, writer = await raw(worker)
        lines = b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde"
        writer.write(OTHER.removesuffix(b"\r\n") + lines)
        assert (await response(reader))[0].split()[1] == b"200"
        assert await ended(reader) == b""
        writer.close()
    assert [record for record in caplog.records if record.exc_info] == []


async def test_a_client_that_leaves_before_its_100_continue_logs_no_traceback(
    caplog: pytest.LogCaptureFixture,
):
    async with with_routes(LocalWorker(configured())).open() as worker:
        reader, writer = await raw(worker)
        lines = b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        writer.write(OTHER.removesuffix(b"\r\n") + lines)
        writer.write_eof()
        await ended(reader)
        writer.close()
    assert [record for record in caplog.records if record.exc_info] == []
