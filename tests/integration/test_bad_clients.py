"""Clients that misbehave below the protocol: silent, not reading, vanished, half a handshake, no HTTP.

Each is ended with the code of the protocol page and counted; another client of the worker does not notice.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.harness.client import Client
from tests.harness.cluster import Cluster, http_get
from tests.harness.raw_client import (
    CONNECT,
    PING_EVERY,
    PONG_WITHIN,
    STALE_AFTER,
    Counted,
    RawClient,
    text,
)
from tests.harness.waiting import until
from tests.harness.wire import CLOSE, TEXT, HandshakeRefused, frame, open_wire

Json = dict[str, Any]


def close_of(code: int) -> bytes:
    return frame(CLOSE, struct.pack("!H", code))


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_a_clients_own_close_is_answered(cluster: Cluster, neighbour: Client, code: int):
    async with RawClient(cluster.worker_port(0)) as client:
        await client.connected()
        client.wire.send(close_of(code))
        await until(client.wire.ended.is_set, 5, "the close is answered")
        assert client.wire.close_code == code


async def test_a_client_that_says_nothing_is_closed_as_stale(cluster: Cluster, neighbour: Client):
    async with (
        Counted(cluster, "app_connections_closed_total", code="3502"),
        Counted(cluster, "app_client_errors_total", code="3502"),
        RawClient(cluster.worker_port(0)) as client,
    ):
        assert await client.closed(STALE_AFTER + 5) == 3502


async def test_a_client_that_does_not_pong_is_closed(cluster: Cluster, neighbour: Client):
    async with (
        Counted(cluster, "app_connections_closed_total", code="3012"),
        RawClient(cluster.worker_port(0)) as client,
    ):
        await client.connected()
        assert await client.closed(PING_EVERY + PONG_WITHIN + 5) == 3012
        assert {} in client.documents


async def test_a_client_that_disappears_without_a_word_is_counted(
    cluster: Cluster, neighbour: Client
):
    async with (
        Counted(cluster, "app_connections_closed_total", code="3000"),
        RawClient(cluster.worker_port(0)) as client,
    ):
        await client.connected()
        client.wire.abort()


async def test_a_client_that_never_reads_is_closed_as_slow(cluster: Cluster, neighbour: Client):
    """It asks for much and reads nothing."""
    publisher = await Client(cluster.worker_port(0)).start()
    for _ in range(40):
        await publisher.publish("thick", "x" * 16000)
    await publisher.close()
    async with (
        RawClient(cluster.worker_port(0)) as client,
        Counted(cluster, "app_connections_closed_total", code="3008"),
        Counted(cluster, "app_slow_consumers_total"),
    ):
        await client.connected()
        client.wire.stop_reading()
        for number in range(2, 60):
            client.wire.send(text({"id": number, "history": {"channel": "thick", "limit": -1}}))


async def test_a_foreign_origin_is_answered_403(cluster: Cluster, neighbour: Client):
    async with Counted(cluster, "app_connections_rejected_total", reason="origin"):
        with pytest.raises(HandshakeRefused) as refused:
            await open_wire(cluster.worker_port(0), headers={"Origin": "http://elsewhere.example"})
        assert refused.value.status == 403


@pytest.mark.parametrize(
    ("headers", "statuses"),
    [
        ({"Sec-WebSocket-Version": "12"}, {400, 426}),
        ({"Sec-WebSocket-Key": "short"}, {400}),
        ({"Upgrade": "carrier-pigeon"}, {400, 426}),
        ({"Connection": "close"}, {400, 426}),
    ],
)
async def test_a_wrong_handshake_is_refused_and_counted(
    cluster: Cluster, neighbour: Client, headers: dict[str, str], statuses: set[int]
):
    async with Counted(cluster, "app_connections_rejected_total", reason="bad_handshake"):
        with pytest.raises(HandshakeRefused) as refused:
            await open_wire(cluster.worker_port(0), headers=headers)
        assert refused.value.status in statuses


async def test_cookies_of_30_kib_pass_nginx_and_of_33_do_not(cluster: Cluster, neighbour: Client):
    """As the browser of a user with the cookies of many applications of one domain sends them."""
    cookies = {"Cookie": "a=" + "x" * (30 << 10)}
    wire = await open_wire(cluster.port, headers=cookies)
    wire.close()
    with pytest.raises(HandshakeRefused) as refused:
        await open_wire(cluster.port, headers={"Cookie": "a=" + "x" * (33 << 10)})
    assert refused.value.status == 400


async def test_an_empty_subprotocol_header_is_accepted(cluster: Cluster, neighbour: Client):
    wire = await open_wire(cluster.worker_port(0), headers={"Sec-WebSocket-Protocol": ""})
    wire.close()


def test_a_plain_get_is_refused_politely(cluster: Cluster):
    answer = http_get(cluster.worker_port(0), "/connection/websocket")
    assert answer.status in {400, 426}
    assert http_get(cluster.worker_port(0), "/nowhere").status == 404


async def test_half_a_handshake_is_not_waited_for_for_ever(cluster: Cluster, neighbour: Client):
    """Through the public port: nginx waits for slow clients, for a limited time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", cluster.port)
    writer.write(b"GET /connection/websocket HTTP/1.1\r\nHost: a\r\nUpgrade: webso")
    async with asyncio.timeout(40):
        answer = await reader.read()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    writer.close()


@pytest.mark.parametrize("line", [b"GARBAGE\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"\0" * 64])
async def test_something_else_than_http_is_refused(
    cluster: Cluster, neighbour: Client, line: bytes
):
    for port in (cluster.port, cluster.worker_port(0), cluster.admin_port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(line + b"\r\n\r\n")
        async with asyncio.timeout(10):
            answer = await reader.read()
        assert b" 200 " not in answer
        writer.close()


async def test_a_request_head_without_end_is_refused(cluster: Cluster, neighbour: Client):
    for port in (cluster.port, cluster.worker_port(0), cluster.admin_port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nX: " + b"y" * 200_000)
        async with asyncio.timeout(10):
            try:
                answer = await reader.read()
            except ConnectionResetError:
                answer = b"HTTP/1.1 400 "
        assert answer.split()[1] in {b"400", b"431"}
        writer.close()


async def test_random_bytes_never_hurt(cluster: Cluster, neighbour: Client):
    """A thousand random frames on connections of their own."""
    makers: list[Callable[[int], bytes]] = [
        lambda n: os.urandom(n),
        lambda n: frame(TEXT, os.urandom(n)),
        lambda n: frame(n % 16, os.urandom(n % 200), fin=bool(n % 2)),
        lambda n: frame(TEXT, CONNECT) + os.urandom(n),
    ]
    for number in range(100):
        async with RawClient(cluster.worker_port(0)) as client:
            for maker in makers:
                client.wire.send(maker(number))
            client.wire.close()
