"""HTTP that a worker hands to aiohttp: bodies of many small chunks, and the heads of later requests."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.unit.local_worker import LocalWorker, configured
from tests.unit.raw_socket import raw
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
