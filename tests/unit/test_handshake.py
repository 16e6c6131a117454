"""What a handshake may look like, as the first request of a connection and as a later one."""

from __future__ import annotations

import asyncio

import pytest

from cluster.websocket import handshake
from tests.harness import wire
from tests.harness.waiting import until
from tests.harness.wire import frame
from tests.unit.local_worker import LocalWorker, configured
from tests.unit.raw_socket import raw
from tests.unit.test_accept import CONNECT, OTHER, request, response, with_routes

HERE = "https://here.example"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ORDERS = pytest.mark.parametrize("is_first", [True, False], ids=["first", "kept alive"])


def added(*lines: str) -> bytes:
    """A handshake with these lines in front of its own."""
    head, _, rest = request().partition(b"\r\n")
    return b"\r\n".join([head, *(line.encode("latin-1") for line in lines), rest])


def replaced(old: bytes, new: bytes) -> bytes:
    assert old in request()
    return request().replace(old, new, 1)


async def answered(
    worker: LocalWorker, data: bytes, *, is_first: bool, connect: bytes = CONNECT
) -> tuple[str, str]:
    """Head and body of the answer to a handshake, sent first or behind another request."""
    reader, writer = await raw(worker)
    if not is_first:
        writer.write(OTHER)
        assert (await response(reader))[0].startswith(b"HTTP/1.1 200 ")
    writer.write(data)
    head, body = await response(reader)
    if head.startswith(b"HTTP/1.1 101 "):
        writer.write(connect)
        # The reply is a frame of the same kind.
        assert (await asyncio.wait_for(reader.readexactly(2), 10))[0] == connect[0]
    writer.close()
    return head.decode(), body.decode("latin-1")


def worker_of() -> LocalWorker:
    return with_routes(LocalWorker(configured(allowed_origins=(HERE,))))


@ORDERS
@pytest.mark.parametrize(
    "data",
    [
        added(f"Origin: {HERE}"),
        added("Connection: keep-alive"),
        replaced(b"Connection: Upgrade", b"Connection: keep-alive\r\nConnection: x, upgrade"),
        request(Sec_WebSocket_Key=f"  {KEY}\t"),
        request(Sec_WebSocket_Extensions='permessage-deflate; a="b", unknown'),
        request(Sec_WebSocket_Extensions=';;,,="'),
        request(Sec_WebSocket_Protocol="x-centrifuge-protobuf-x"),
        request(Host="[::1]:8000"),
        request(Host="xn--grn-ioa.example:"),
        request(Host=""),
        request(path="http://elsewhere.example" + handshake.PATH),
        request(path="/connection/%77eb%73ocket"),
        request(Expect="100-continue"),
        added("X-Latin: \xfc\xff", "Sec-WebSocket-Accept: x", "Upgrade-Insecure-Requests: 1"),
    ],
)
async def test_what_is_allowed_becomes_a_websocket(data: bytes, is_first: bool):
    async with worker_of().open() as worker:
        reader, writer = await raw(worker)
        if not is_first:
            writer.write(OTHER)
            await response(reader)
        writer.write(data + CONNECT)
        head, _ = await response(reader)
        if b" 100 " in head:
            head, _ = await response(reader)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Extensions" not in head
        assert b"Protocol" not in head.replace(b"Protocols", b"")
        # The reply is a frame of the same kind.
        assert (await asyncio.wait_for(reader.readexactly(2), 10))[0] == CONNECT[0]
        writer.close()


@ORDERS
@pytest.mark.parametrize(
    ("data", "status", "says"),
    [
        (request().replace(b"HTTP/1.1", b"HTTP/1.0"), 400, "the version of HTTP must be 1.1"),
        (
            added("Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"),
            400,
            "the version of HTTP must be 1.1",
        ),
        (added(f"Origin: {HERE}", f"Origin: {HERE}"), 400, "one Origin at most"),
        (added(f"Origin: {HERE}", "Origin: https://evil.example"), 400, "one Origin at most"),
        (added("Origin: https://evil.example", f"Origin: {HERE}"), 403, "origin"),
        (added(f"Origin: {HERE} https://evil.example"), 403, "origin"),
        (added("Origin:"), 403, "origin"),
        (added("Origin: null"), 403, "origin"),
        (added("Host: y"), 400, "Duplicate 'Host' header"),
        (request(Host=None), 400, "Missing 'Host' header"),
        (request(Host="["), 400, "one Host is needed"),
        (request(Host="a b"), 400, "one Host is needed"),
        (request(Host="a, b"), 400, "one Host is needed"),
        (request(Host="a/b"), 400, "one Host is needed"),
        (request(Host="user@a"), 400, "one Host is needed"),
        (request(Host="a:b"), 400, "one Host is needed"),
        (added("Sec-WebSocket-Version: 13"), 426, "Sec-WebSocket-Version must be 13"),
        (request(Sec_WebSocket_Version="13, 8"), 426, "Sec-WebSocket-Version must be 13"),
        (request(Sec_WebSocket_Version="013"), 426, "Sec-WebSocket-Version must be 13"),
        (added("Upgrade: websocket"), 400, "only WebSockets"),
        (request(Upgrade="websocket, h2c"), 400, "only WebSockets"),
        (request(Connection="notupgrade"), 400, "only WebSockets"),
        (request(Sec_WebSocket_Key=f"{KEY[:9]} {KEY[9:]}"), 400, "one Sec-WebSocket-Key"),
        (added(f"Sec-WebSocket-Key: {KEY}"), 400, "one Sec-WebSocket-Key"),
        (replaced(KEY[:9].encode(), KEY[:9].encode() + b"\r\n "), 400, ""),
        (replaced(b"Key: ", b"Key:\r\n "), 400, ""),
        (added("X: folded", " line"), 400, ""),
        (replaced(b"Upgrade: websocket", b"Upgrade : websocket"), 400, ""),
        (request().replace(b"\r\n", b"\n"), 400, ""),
        (added("X: a\rb"), 400, ""),
        (added("Transfer-Encoding: chunked", "Content-Length: 5"), 400, ""),
        (added("Transfer-Encoding: identity"), 400, "a handshake has no body"),
        (added("Content-Length: 0", "Content-Length: 5"), 400, ""),
        (added("Content-Length: 0, 0"), 400, ""),
        (added("Content-Length: +0"), 400, ""),
        (request(path=handshake.PATH + "#part"), 400, "has no fragment"),
        (request(path=handshake.PATH + "?a=\0"), 400, ""),
        (request(path="http://[" + handshake.PATH), 400, ""),
        (request(path="/connection%2Fwebsocket"), 404, ""),
        (request(path="/x/.." + handshake.PATH), 404, ""),
        (request(path="/" + handshake.PATH), 404, ""),
        (request(path=handshake.PATH + "%00"), 404, ""),
        (request(path=handshake.PATH + ";a"), 404, ""),
    ],
)  # fmt: skip
async def test_what_is_not_allowed_is_refused(data: bytes, status: int, says: str, is_first: bool):
    async with worker_of().open() as worker:
        head, body = await answered(worker, data, is_first=is_first)
        assert head.split()[1] == str(status)
        assert says in body
        assert not worker.server.clients


@ORDERS
@pytest.mark.parametrize(
    "lines",
    [
        ["a, centrifuge-json, b"],
        ["a", "centrifuge-json"],
        ["centrifuge-json, centrifuge-json"],
        ["centrifuge-protobuf, centrifuge-json"],
        ["\tcentrifuge-json\t,,"],
    ],
)
async def test_our_subprotocol_is_selected_once_wherever_it_is_offered(
    lines: list[str], is_first: bool
):
    async with worker_of().open() as worker:
        data = added(*(f"Sec-WebSocket-Protocol: {line}" for line in lines))
        head, _ = await answered(worker, data, is_first=is_first)
        assert head.count("\r\nSec-WebSocket-Protocol: centrifuge-json\r\n") == 1
        assert head.count("Sec-WebSocket-Protocol") == 1


@ORDERS
@pytest.mark.parametrize("line", ["a, centrifuge-protobuf", "centrifuge-protobuf"])
async def test_the_subprotocol_of_protobuf_is_selected_where_json_is_not_offered(
    line: str, is_first: bool
):
    async with worker_of().open() as worker:
        data = request(Sec_WebSocket_Protocol=line)
        connect = frame(wire.BINARY, b"\x04\x08\x01\x22\x00")
        head, _ = await answered(worker, data, is_first=is_first, connect=connect)
        assert head.count("\r\nSec-WebSocket-Protocol: centrifuge-protobuf\r\n") == 1


@ORDERS
@pytest.mark.parametrize("offer", ["Centrifuge-JSON", 'centrifuge-json;"a"', "", ",", "a, b"])
async def test_no_other_subprotocol_is_selected(offer: str, is_first: bool):
    async with worker_of().open() as worker:
        data = request(Sec_WebSocket_Protocol=offer)
        head, _ = await answered(worker, data, is_first=is_first)
        assert head.startswith("HTTP/1.1 101 ")
        assert "Sec-WebSocket-Protocol" not in head


@ORDERS
async def test_a_refused_head_request_has_no_body(is_first: bool):
    async with worker_of().open() as worker:
        reader, writer = await raw(worker)
        if not is_first:
            writer.write(OTHER)
            await response(reader)
        writer.write(request(method="HEAD"))
        found = await asyncio.wait_for(reader.read(-1), 10)
        assert found.startswith(b"HTTP/1.1 400 ")
        assert found.endswith(b"\r\n\r\n")
        writer.close()


async def test_a_client_that_only_half_closes_behind_its_handshake_leaves_nothing():
    async with worker_of().open() as worker:
        reader, writer = await raw(worker)
        writer.write(request() + CONNECT)
        writer.write_eof()
        found = await asyncio.wait_for(reader.read(-1), 10)
        assert found.startswith(b"HTTP/1.1 101 ")
        await until(lambda: not worker.server.clients, 10, "the client has left")
        writer.close()
