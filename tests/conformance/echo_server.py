"""A server that returns every message, made of our handshake and our frames.

Autobahn's cases are written for such a server. `python -m tests.conformance.echo_server PORT` serves on
loopback until it is interrupted, for the suite itself: `wstest -m fuzzingclient`, which needs Python 2.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import uvloop
from aiohttp import web

from cluster.errors import BAD_TEXT, Disconnect
from cluster.protocol import close_frame, text_frame
from cluster.websocket import handshake
from cluster.websocket.accept import Acceptor
from cluster.websocket.address_limits import Refusal
from cluster.websocket.frames import BINARY, FrameProtocol
from cluster.websocket.handshake import HandshakeRequest
from cluster.websocket.server import Pending

MESSAGE_SIZE_LIMIT = 2**20
_QUEUE_MAX_BYTES = 2**24
_CLOSE_SECONDS = 0.5


class EchoClient(FrameProtocol):
    """Returns text and binary messages; has the protocol of no application."""

    def begin(self, transport: asyncio.Transport, message_size_limit: int, queue_max: int) -> None:
        super().begin(transport, message_size_limit, queue_max)
        self._opening = None

    def message(self, opcode: int, data: bytes) -> None:
        if opcode != BINARY or self._is_closing:
            super().message(opcode, data)
        else:
            self._unfinished = 0
            self.write(b"\x82" + text_frame(data)[1:])

    def receive(self, data: bytes) -> None:
        try:
            data.decode()
        except UnicodeDecodeError:
            self.fail(BAD_TEXT)
        else:
            self.write(text_frame(data))

    def control_frame(self) -> None:
        """No limit counts them."""

    def throttled(self) -> None:
        """No metric counts it."""

    def native_pong(self) -> None:
        """A pong needs no answer."""

    def next_turn(self) -> None:
        self.resume()

    def fail(self, why: Disconnect) -> None:
        if not self._is_closing:
            self._close(why.code, why.reason)

    def closed_by_peer(self, code: int) -> None:
        self._close(code or 1000, "")
        self.end()

    def peer_stalled(self) -> None:
        self.abort()

    def _close(self, code: int, reason: str) -> None:
        self._is_closing = True
        self.write(close_frame(code, reason))
        self.resume()
        asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self.abort)


class EchoServer:
    """What an `Acceptor` needs of a server: it accepts every good handshake."""

    def watch(self, pending: Pending, transport: asyncio.Transport, others: int) -> bool:
        """Requests may take any time, and any descriptor."""
        return True

    def ended(self, pending: Pending) -> None:
        """None was kept."""

    def bad_http(self) -> None:
        """Nothing is counted."""

    def refusal(
        self,
        message: HandshakeRequest,
        transport: asyncio.Transport | None,
        *,
        is_upgraded: bool,
        is_admitted: bool = True,
    ) -> Refusal | None:
        fault = handshake.fault(message, is_upgraded=is_upgraded)
        return Refusal(fault.status, "", fault.text) if fault is not None else None

    def accept(self, transport: asyncio.Transport, message: HandshakeRequest, tail: bytes) -> None:
        client = EchoClient()
        transport.set_protocol(client)
        client.begin(transport, MESSAGE_SIZE_LIMIT, _QUEUE_MAX_BYTES)
        transport.write(handshake.accepted(message))
        if tail:
            client.data_received(tail)


async def _no_http(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=404)


@contextlib.asynccontextmanager
async def serving(port: int = 0) -> AsyncIterator[int]:
    """Serve on loopback; gives the port."""
    acceptor = Acceptor(EchoServer(), web.Server(_no_http))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(acceptor, "127.0.0.1", port)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _serve(port: int) -> None:
    async with serving(port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
