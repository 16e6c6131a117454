"""nginx's directory is on a full disk: large requests and answers pass, and WebSockets live on.

The store is elsewhere, so that only nginx's temporary files and logs have no room.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.harness.client import Client
from tests.harness.cluster import Cluster
from tests.harness.small_disk import fill, small_disk
from tests.harness.store import Store
from tests.harness.waiting import until

KEY = "k" * 32
CONFIG: dict[str, Any] = {"http_api": {"key": KEY}}
HEAD = f"Host: cluster\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
#: nginx lets 1 MiB pass; the worker as well.
LARGE = 900_000


def exchanged(port: int, request: bytes, *, reads_slowly: bool = False) -> tuple[int, bytes]:
    """Send a request and read the answer until its end: status and body; the connection is closed."""
    with socket.socket() as line:
        if reads_slowly:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(30)
        line.connect(("127.0.0.1", port))
        line.sendall(request)
        got = bytearray()
        while data := line.recv(4096 if reads_slowly else 65536):
            got += data
    head, _, body = bytes(got).partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


def with_length(path: str, body: bytes) -> bytes:
    start = f"POST /api/{path} HTTP/1.1\r\n{HEAD}Connection: close\r\n"
    return f"{start}Content-Length: {len(body)}\r\n\r\n".encode() + body


def in_chunks(path: str, body: bytes, size: int) -> bytes:
    """A body whose framing is larger than itself: nginx keeps both until it is complete."""
    start = f"POST /api/{path} HTTP/1.1\r\n{HEAD}Connection: close\r\n"
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return f"{start}Transfer-Encoding: chunked\r\n\r\n".encode() + framed + b"0\r\n\r\n"


def publish_body(channel: str, size: int) -> bytes:
    return json.dumps({"channel": channel, "data": "x" * size}).encode()


async def ask(port: int, request: bytes, **how: bool) -> tuple[int, bytes]:
    return await asyncio.to_thread(exchanged, port, request, **how)


@pytest.mark.timeout(180)
async def test_with_a_full_disk_large_bodies_and_answers_pass_and_websockets_live_on(
    tmp_path: Path,
):
    with small_disk(tmp_path / "disk", 24 << 20) as disk:
        async with Store(tmp_path / "store") as store:
            cluster = Cluster(disk / "run", workers=2, config=CONFIG, redis_urls=(store.url,))
            await cluster.start(within=60)
            try:
                await check(cluster, disk)
                assert await cluster.stop(within=60) == 0
            finally:
                await cluster.stop()


async def check(cluster: Cluster, disk: Path) -> None:
    client = await Client(cluster.port, name="calm").start()
    got: list[Any] = []
    client.subscribe("calm", lambda _, publication: got.append(publication["data"]))
    await until(lambda: client.is_whole, 30, "the client is in its channel")
    nginx = cluster.child("nginx")
    fill(disk)
    with pytest.raises(OSError, match="No space left"):
        (disk / "more").write_bytes(b"x" * 65536)
    for request in (
        with_length("publish", publish_body("plain:big", LARGE)),
        in_chunks("publish", publish_body("plain:big", LARGE), 65536),
        in_chunks("publish", publish_body("plain:big", 1_040_000), 128),
    ):
        answer = await ask(cluster.port, request)
        assert answer == (200, b'{"result":{}}'), (len(request), answer)
    # Framing that needs a temporary file has an answer, too.
    tiny = in_chunks("publish", publish_body("plain:big", LARGE), 4)
    assert (await ask(cluster.port, tiny))[0] == 503
    # What is too large is refused, not kept.
    assert (await ask(cluster.port, with_length("publish", b"x" * (2 << 20))))[0] == 413
    for _ in range(20):
        request = with_length("publish", publish_body("kept", 60_000))
        assert (await ask(cluster.port, request))[0] == 200
    asked = with_length("history", json.dumps({"channel": "kept", "limit": 20}).encode())
    for reads_slowly in (False, True):
        status, body = await ask(cluster.port, asked, reads_slowly=reads_slowly)
        assert status == 200
        assert len(body) > 250_000
    # The log of accesses has no room either: what is written to it is dropped, nothing waits for it.
    os.kill(nginx, signal.SIGUSR1)
    for number in range(300):
        answer = await ask(cluster.port, b"GET /health HTTP/1.0\r\nHost: cluster\r\n\r\n")
        assert answer[0] == 200, number
    await client.publish("calm", "after")
    await until(lambda: got == ["after"], 30, "the client hears its channel")
    assert client.history.ends == []
    assert cluster.child("nginx") == nginx
    await client.close()
