"""A worker accepts on its port and on its unix socket alike, and knows its clients on both."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from cluster.children.listeners import bind
from cluster.children.local_sockets import bind_local
from cluster.websocket.file_reserve import PausableListener
from tests.harness.wire import upgrade_request
from tests.unit.local_worker import LocalWorker, configured

LIMIT = 2


class Slot:
    """The two sockets of a slot, and a worker's listener on them."""

    def __init__(self, worker: LocalWorker, folder: Path) -> None:
        self.path = folder / "w0"
        self.sockets = [bind("127.0.0.1", 0), bind_local(self.path)]
        self.port = self.sockets[0].getsockname()[1]
        self.listener = PausableListener(worker.acceptor, self.sockets, 16)
        self.writers: list[asyncio.StreamWriter] = []

    async def send(self, request: bytes, *, local: bool) -> asyncio.StreamReader:
        if local:
            reader, writer = await asyncio.open_unix_connection(str(self.path))
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        writer.write(request)
        return reader

    async def handshake(self, forwarded_for: str, *, local: bool) -> bytes:
        headers = {"X-Forwarded-For": forwarded_for} if forwarded_for else {}
        request = upgrade_request("worker", "/connection/websocket", headers)
        reader = await self.send(request, local=local)
        async with asyncio.timeout(10):
            return (await reader.readline())[9:12]


@contextlib.asynccontextmanager
async def slot(worker: LocalWorker, folder: Path) -> AsyncIterator[Slot]:
    async with worker.open():
        one = Slot(worker, folder)
        await one.listener.open()
        try:
            yield one
        finally:
            one.listener.close()
            for writer in one.writers:
                writer.close()
            for sock in one.sockets:
                sock.close()


async def test_a_unix_socket_counts_clients_by_the_address_that_nginx_says(tmp_path: Path):
    limited = LocalWorker(configured(connection_limit_per_address=LIMIT))
    async with slot(limited, tmp_path) as one:
        for local in (True, False):
            assert await one.handshake("192.0.2.1", local=local) == b"101"
        for local in (True, False):
            assert await one.handshake("192.0.2.1", local=local) == b"429"
        for address in ("192.0.2.2", "192.0.2.3", "2001:db8::1"):
            assert await one.handshake(address, local=True) == b"101"
        addresses = sorted(client.address for client in limited.server.clients)
        assert addresses == ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::/64"]


async def test_without_a_header_the_client_of_a_unix_socket_has_the_address_of_loopback(
    tmp_path: Path,
):
    limited = LocalWorker(configured(connection_limit_per_address=LIMIT))
    async with slot(limited, tmp_path) as one:
        assert await one.handshake("", local=True) == b"101"
        assert await one.handshake("", local=False) == b"101"
        assert [client.address for client in limited.server.clients] == ["127.0.0.1"] * 2
        assert await one.handshake("", local=True) == b"429"


async def test_a_request_of_an_application_has_an_address_on_both(tmp_path: Path):
    async def remote(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.remote} {(await request.read()).decode()}")

    worker = LocalWorker(configured())
    worker.routes = [web.post("/remote", remote)]
    async with slot(worker, tmp_path) as one:
        for local in (True, False):
            reader = await one.send(
                b"POST /remote HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
                b"Connection: close\r\n\r\nbody",
                local=local,
            )
            async with asyncio.timeout(10):
                assert (await reader.read()).endswith(b"\r\n\r\n127.0.0.1 body")


async def test_a_pause_holds_up_both_and_keeps_the_file(tmp_path: Path):
    worker = LocalWorker(configured())
    async with slot(worker, tmp_path) as one:
        one.listener.pause()
        waiting = [
            asyncio.create_task(one.handshake("192.0.2.1", local=local)) for local in (True, False)
        ]
        assert not (await asyncio.wait(waiting, timeout=0.1))[0]
        assert one.path.is_socket()
        await one.listener.resume()
        assert await asyncio.gather(*waiting) == [b"101", b"101"]
        one.listener.close()
        await one.listener.resume()
        late = asyncio.create_task(one.handshake("192.0.2.1", local=True))
        assert not (await asyncio.wait({late}, timeout=0.1))[0]
        late.cancel()
        assert one.path.is_socket()
