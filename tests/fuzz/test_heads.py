"""Request heads of every kind, and sockets that end or interrupt in every way: no 500, no traceback."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cluster.websocket.handshake import PATH
from tests.harness import wire
from tests.harness.waiting import until
from tests.harness.wire import frame
from tests.unit.local_worker import Caller, LocalWorker, ask, configured, entered
from tests.unit.test_accept import CONNECT, OTHER, request, with_routes

METHODS = ["GET", "GET", "GET", "get", "HEAD", "POST", "OPTIONS", "CONNECT", "PRI", "G\tT", "", "É"]
TARGETS = [
    PATH, PATH, PATH, PATH + "?a=%ff&b=%zz", PATH + "?" + "x" * 9000, "http://x" + PATH, "http://[" + PATH,
    "http://x:99999999" + PATH, "http://" + PATH, "//x" + PATH, "*", "x:443", "/%", "/%2", "/\xff", "",
    "/connection%2fwebsocket", PATH + "#a", PATH + "%00", "/../.." + PATH, "?", "/" + "a/" * 300, "data:,x",
]  # fmt: skip
VERSIONS = ["HTTP/1.1"] * 6 + [
    "HTTP/1.0",
    "HTTP/2.0",
    "HTTP/0.9",
    "HTTP/1.1 ",
    "HTTP/11",
    "",
    "X/1.1",
]
LINES = [
    "Host: x", "Host: [", "Host:", "Host: \xff", "Origin: http://[", "Origin: http://x:y", "Origin: \xff",
    "Connection: Upgrade", "Connection: close, keep-alive, upgrade", "Upgrade: websocket", "Upgrade: h2c",
    "Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: -1", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Key: \xfc", "Sec-WebSocket-Protocol: \xff, centrifuge-json", "Sec-WebSocket-Extensions: ;=",
    "Content-Length: 0", "Content-Length: 5", "Content-Length: -1", "Content-Length: 99999999999999999999",
    "Transfer-Encoding: chunked", "Transfer-Encoding: x", "Expect: 100-continue", "Expect: x",
    "Content-Encoding: gzip", "Cookie: a=b; =; \xff", "X: " + "y" * 5000, " folded", "\tfolded", "no colon",
    ": no name", "X\x01: y", "X: a\x00b", "X: a\rb", "X : y", "Range: bytes=0-", "If-None-Match: *", "Upgrade:",
    "Accept-Encoding: \xff", 'Forwarded: for="[', "X-Forwarded-For: \xff,,[", "Content-Type: ;charset=\xff",
]  # fmt: skip
BODIES = [b"", b"", CONNECT, b"5\r\nabcde\r\n0\r\n\r\n", b"zz\r\n", b"\0" * 40, OTHER, b"GET "]


def head(chance: random.Random) -> bytes:
    """A request with some lines left out, doubled, exchanged or put in."""
    is_handshake = chance.random() < 0.5
    lines = request().decode().split("\r\n")[1:-2] if is_handshake else []
    for _ in range(chance.randint(0, 6)):
        lines.insert(chance.randint(0, len(lines)), chance.choice(LINES))
    if lines and chance.random() < 0.3:
        del lines[chance.randrange(len(lines))]
    if is_handshake and chance.random() < 0.5:
        first = f"GET {PATH} HTTP/1.1"
    else:
        first = f"{chance.choice(METHODS)} {chance.choice(TARGETS)} {chance.choice(VERSIONS)}"
    end = chance.choice(["\r\n"] * 9 + ["\n"])
    whole = end.join([first, *lines, "", ""]).encode("latin-1")
    data = whole + chance.choice(BODIES)
    return data[: chance.randrange(len(data))] if chance.random() < 0.1 else data


async def exchange(port: int, data: bytes, chance: random.Random) -> bytes:
    """What comes back to a request in some pieces until either side has closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = b""
    try:
        async with asyncio.timeout(10):
            for piece in (data[:cut] for cut in [chance.randint(0, len(data))]):
                writer.write(piece)
                await asyncio.sleep(0)
                writer.write(data[len(piece) :])
            writer.write_eof()
            while more := await reader.read(65536):
                found += more
    except ConnectionError:
        # It closed without reading everything.
        pass
    finally:
        writer.transport.abort()
    return found


@asynccontextmanager
async def watched(caplog: pytest.LogCaptureFixture) -> AsyncIterator[tuple[LocalWorker, Caller]]:
    """A worker with another client, which must not notice anything; nothing is logged with a traceback."""
    with caplog.at_level(logging.WARNING):
        worker = with_routes(LocalWorker(configured(allowed_origins=("*",), command_rate_limit=0)))
        async with worker.open():
            witness = await entered(worker)
            yield worker, witness
            assert "publish" in await ask(witness, "publish", channel="a", data=1)
            await until(lambda: len(worker.server.clients) == 1, 20, "the others have left")
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("seed", range(4))
async def test_no_head_is_answered_with_a_500(seed: int, caplog: pytest.LogCaptureFixture):
    chance = random.Random(seed)
    statuses: set[int] = set()
    async with watched(caplog) as (worker, _):
        for _ in range(300):
            before = OTHER if chance.random() < 0.3 else b""
            data = head(chance)
            found = await exchange(worker.port, before + data, chance)
            new = {int(one) for one in re.findall(rb"HTTP/1\.[01] (\d{3}) ", found)}
            assert not new & {500, 502, 503, 504}, data
            statuses |= new
    assert {101, 200, 400} <= statuses


async def opened(worker: LocalWorker) -> socket.socket:
    """A blocking socket on which a client has connected."""
    loop = asyncio.get_running_loop()
    sock = socket.create_connection(("127.0.0.1", worker.port), 10)
    sock.setblocking(False)
    await loop.sock_sendall(sock, request() + CONNECT)
    found = b""
    while b'"connect":' not in found:
        found += await loop.sock_recv(sock, 65536)
    return sock


@pytest.mark.parametrize("ending", ["reset", "half closed", "urgent", "unread", "mid frame"])
async def test_no_end_of_a_socket_is_noticed_by_another_client(
    ending: str, caplog: pytest.LogCaptureFixture
):
    async with watched(caplog) as (worker, witness):
        for _ in range(20):
            sock = await opened(worker)
            if ending == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.send(frame(wire.TEXT, b'{"id":2,"subscribe":{"channel":"a"}}'))
            elif ending == "half closed":
                sock.send(frame(wire.TEXT, b'{"id":2,"history":{"channel":"a","limit":1}}'))
                sock.shutdown(socket.SHUT_WR)
                await until(lambda: len(worker.server.clients) == 1, 20, "it has left")
            elif ending == "urgent":
                # The urgent octet is no part of the stream.
                sock.send(b"!", socket.MSG_OOB)
                sock.send(frame(wire.TEXT, b'{"id":2,"publish":{"channel":"a","data":1}}'))
            elif ending == "unread":
                sock.send(frame(wire.PING, b"x") * 50 + b"\x81\x02{}")
            else:
                sock.send(frame(wire.TEXT, b'{"id":2,"publish":{"channel":"a","data":1}}')[:20])
            sock.close()
        assert "publish" in await ask(witness, "publish", channel="a", data=1)
