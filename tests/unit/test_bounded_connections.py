"""How long a connection may wait for its next request."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from cluster import bounded_connections
from cluster.bounded_connections import BoundedConnections

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    """The port of a server that answers everything."""

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(text="here")

    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        server = web.Server(answer)
        accepting = BoundedConnections(sock, server, limit=8)
        try:
            yield sock.getsockname()[1]
        finally:
            accepting.close()
            await server.shutdown(1.0)


async def test_an_idle_connection_is_closed_after_its_time_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
):
    assert bounded_connections.IDLE_SECONDS == 75.0
    monkeypatch.setattr(bounded_connections, "IDLE_SECONDS", 1.0)
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(REQUEST)
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\nhere"), 10)
        answered = asyncio.get_running_loop().time()
        assert await asyncio.wait_for(reader.read(), 30) == b""
        assert asyncio.get_running_loop().time() - answered > 0.9
        writer.close()
