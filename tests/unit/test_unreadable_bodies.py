"""Bodies that are not what their headers say are a client's fault, whoever reads them."""

from __future__ import annotations

import pytest
from aiohttp import web

from cluster.application import Application
from tests.unit.local_worker import LocalWorker, configured
from tests.unit.raw_socket import raw
from tests.unit.test_server_api import KEY
from tests.unit.test_server_api import worker as api_worker
from tests.unit.test_worker_http import status, with_hello

BODIES = {
    "gzip": b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nxxxxx",
    "deflate": b"Content-Encoding: deflate\r\nContent-Length: 5\r\n\r\nxxxxx",
    "no size of a chunk": b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc",
    "a chunk that is longer": b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n",
}


async def answered(worker: LocalWorker, path: str, rest: bytes) -> bytes:
    """The status of a POST whose last headers and body are given."""
    reader, writer = await raw(worker)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\n".encode() + rest)
    try:
        return await status(reader)
    finally:
        writer.close()


@pytest.mark.parametrize("kind", BODIES)
async def test_a_body_that_is_not_what_its_headers_say_is_answered_with_400(kind: str):
    async with with_hello().open() as worker:
        assert await answered(worker, "/hello", BODIES[kind]) == b"400"
    async with api_worker().open() as worker:
        key = f"X-API-Key: {KEY}\r\n".encode()
        assert await answered(worker, "/api/publish", key + BODIES[kind]) == b"400"


@pytest.mark.parametrize("kind", BODIES)
async def test_it_is_no_failure_of_the_application_that_reads_it(kind: str):
    app = Application()

    async def read(request: web.Request) -> web.Response:
        return web.Response(text=await request.text())

    app.http.router.add_post("/read", read)
    local = LocalWorker(configured(), application=app)
    async with local.open() as worker:
        assert await answered(worker, "/app/read", BODIES[kind]) == b"400"
        assert worker.counters.errors["handler"] == 0
