"""A WebSocket proxy that forwards publications and may drop, double or swap them.

It is there to show that the load test notices: the faults are ones that the server must never make.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

from tests.harness.processes import free_ports

# The lines that are to be sent instead of one line with a publication, and its number among all.
Fault = Callable[[int, str], list[str]]
_FAULTY = 7


def swallow(number: int, line: str) -> list[str]:
    """The seventh publication is never delivered."""
    return [] if number == _FAULTY else [line]


def double(number: int, line: str) -> list[str]:
    """The seventh publication is delivered twice."""
    return [line, line] if number == _FAULTY else [line]


class Middleman:
    """An async context manager; `url` is where it listens.

    Args:
        target: the WebSocket address behind it.
        fault: what it does to publications.
    """

    def __init__(self, target: str, fault: Fault) -> None:
        self.port = free_ports(1)
        self.url = f"ws://127.0.0.1:{self.port}"
        self._target = target
        self._fault = fault
        self._numbers = itertools.count(1)
        app = web.Application()
        app.router.add_get("/connection/websocket", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=1.0)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        front = web.WebSocketResponse()
        await front.prepare(request)
        async with aiohttp.ClientSession() as session, session.ws_connect(self._target) as back:
            ways = [
                asyncio.ensure_future(self._up(front, back)),
                asyncio.ensure_future(self._down(back, front)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        with contextlib.suppress(ConnectionError):
            await front.close()
        return front

    async def _up(
        self, front: web.WebSocketResponse, back: aiohttp.ClientWebSocketResponse
    ) -> None:
        async for message in front:
            await _send(back, message.data)

    async def _down(
        self, back: aiohttp.ClientWebSocketResponse, front: web.WebSocketResponse
    ) -> None:
        async for message in back:
            lines = [out for line in _lines(message.data) for out in self._changed(line)]
            if lines:
                await front.send_str("\n".join(lines))

    def _changed(self, line: str) -> list[str]:
        if '"pub"' not in line:
            return [line]
        return self._fault(next(self._numbers), line)


def _lines(data: str | bytes) -> list[str]:
    text = data if isinstance(data, str) else data.decode()
    return [line for line in text.split("\n") if line]


async def _send(connection: aiohttp.ClientWebSocketResponse, data: str | bytes) -> None:
    await (connection.send_str(data) if isinstance(data, str) else connection.send_bytes(data))
