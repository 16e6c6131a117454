"""What the tests of the server share: handlers, a raw socket, and reading from it until its end."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.unit.local_worker import LocalWorker

QUICK: dict[str, Any] = {"ping_interval": 0.5, "pong_timeout": 0.1, "stale_close_delay": 0.3}


async def echo(user: str, data: bytes) -> bytes:
    return data


def echo_at_once(user: str, data: bytes) -> bytes:
    return data


async def raw(worker: LocalWorker) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", worker.port)


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Everything that comes until the end."""
    return await asyncio.wait_for(reader.read(-1), 10)


def close_code(data: bytes) -> int:
    """The code of the close frame that ends this."""
    at = data.rindex(b"\x88")
    return int.from_bytes(data[at + 2 : at + 4], "big")
