"""Handshakes at a worker and through nginx: who may become a WebSocket, and that each gets one answer."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.harness.cluster import Cluster
from tests.harness.wire import TEXT, frame
from tests.unit.test_accept import request
from tests.unit.test_handshake import HERE, KEY, added

WITHIN_SECONDS = 20.0
CONNECT = frame(TEXT, b'{"id":1,"connect":{}}')
WAYS = pytest.mark.parametrize("way", ["worker", "nginx"])

LAST = b"GET /connection/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
OLD = request().replace(b"HTTP/1.1", b"HTTP/1.0")
BY_HOP = request(Connection="keep-alive")

GOOD = {
    "plain": request(),
    "allowed origin": added(f"Origin: {HERE}"),
    "several options": request(Connection="keep-alive, Upgrade"),
    "in capitals": request(Connection="UPGRADE", Upgrade="WebSocket"),
    "options in two lines": added("Connection: keep-alive"),
    "an absolute target": request(path="http://x/connection/websocket"),
    "a percent-encoded letter": request(path="/connection/%77ebsocket"),
    "an unknown extension": request(Sec_WebSocket_Extensions="x-unknown; a=1, permessage-deflate"),
}
BAD = {
    "HTTP/1.0": OLD,
    "HTTP/1.0 kept alive": OLD.replace(b"Connection: Upgrade", b"Connection: keep-alive, Upgrade"),
    "an upgrade that Connection does not name": BY_HOP,
    "no Connection": request(Connection=None),
    "a similar option": request(Connection="no-upgrade, upgraded"),
    "another protocol": request(Upgrade="h2c"),
    "two origins": added(f"Origin: {HERE}", f"Origin: {HERE}"),
    "two origins, one of them foreign": added(f"Origin: {HERE}", "Origin: https://evil.example"),
    "a foreign origin": added("Origin: https://evil.example"),
    "two hosts": added("Host: y"),
    "no host": request(Host=None),
    "a bad host": request(Host="a b"),
    "two versions": added("Sec-WebSocket-Version: 8"),
    "a folded key": request().replace(KEY[:9].encode(), KEY[:9].encode() + b"\r\n "),
    "a folded header": added("X: a", "\tb"),
    "a space before a colon": request().replace(b"Host:", b"Host :"),
    "both kinds of length": added("Transfer-Encoding: chunked", "Content-Length: 0"),
    "two lengths": added("Content-Length: 0", "Content-Length: 4"),
    "a signed length": added("Content-Length: +0"),
    "an unknown coding": added("Transfer-Encoding: identity, chunked"),
    "a NUL": added("X: a\0b"),
    "another path": request(path="/connection/websocket/x"),
    "an authority for a target": request(path="x:443", method="CONNECT"),
    "HEAD": request(method="HEAD"),
}


def port_of(cluster: Cluster, way: str) -> int:
    return cluster.worker_port(0) if way == "worker" else cluster.port


async def answers(port: int, data: bytes) -> bytes:
    """Everything that comes back until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = b""
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            writer.write(data)
            while more := await reader.read(65536):
                found += more
    except ConnectionResetError:
        # It closed without reading what came behind the request.
        pass
    finally:
        writer.close()
    return found


@WAYS
@pytest.mark.parametrize("name", GOOD)
async def test_a_good_handshake_becomes_a_websocket(cluster: Cluster, name: str, way: str):
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(cluster, way))
    async with asyncio.timeout(WITHIN_SECONDS):
        # Frames may come in one piece with the request.
        writer.write(GOOD[name] + CONNECT)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"sec-websocket-extensions" not in head.lower()
        assert (await reader.readexactly(2))[0] == 0x81
    writer.close()


@WAYS
@pytest.mark.parametrize("name", BAD)
async def test_a_bad_handshake_is_refused_and_nothing_behind_it_is_taken_for_its_body(
    cluster: Cluster, name: str, way: str
):
    found = await answers(port_of(cluster, way), BAD[name] + LAST)
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", found)]
    # 501 is for an unknown coding (RFC 9112, section 6.1).
    assert 400 <= statuses[0] < 500 or statuses[0] == 501
    # The request behind it has an answer of its own, or none if the connection was closed.
    assert statuses[1:] in ([], [404])


FAULTY_BODIES = {
    "not compressed": b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde",
    "not compressed chunks": b"Content-Encoding: deflate\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    "no chunks": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "left before its 100": b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
}


@pytest.mark.parametrize("way", ["worker", "nginx", "admin"])
@pytest.mark.parametrize("name", FAULTY_BODIES)
@pytest.mark.parametrize("path", ["/health", "/console/key", "/connection/websocket"])
async def test_a_faulty_body_is_the_client_s_fault(
    cluster: Cluster, name: str, way: str, path: str
):
    """The fixture looks for tracebacks in the cluster's log at the end."""
    port = cluster.admin_port if way == "admin" else port_of(cluster, way)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST %b HTTP/1.1\r\nHost: x\r\n" % path.encode() + FAULTY_BODIES[name])
    async with asyncio.timeout(WITHIN_SECONDS):
        if "left" in name:
            writer.write_eof()
            await reader.read(-1)
        else:
            head = await reader.readuntil(b"\r\n\r\n")
            assert 400 <= int(head.split()[1]) < 500
    writer.close()
