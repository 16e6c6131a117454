"""What a connection is before it is a WebSocket: bytes that may become a handshake.

A handshake of the WebSocket address is answered here, because after a roll or a crash everybody
comes at once and what a handshake costs decides how long that takes (docs/adr/0007). Everything
else is aiohttp's: another address, and what is no HTTP at all.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import cast

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpRequestParser, RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from cluster.websocket import handshake
from cluster.websocket.server import WebSocketServer

_TOO_LARGE = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE

#: A longer head is not waited for.
_HEAD_LIMIT = 65_536


class Acceptor:
    """Makes an `PendingConnection` for each accepted connection; what `loop.create_server` wants.

    Args:
        http: answers what is not the WebSocket address.
    """

    def __init__(self, server: WebSocketServer, http: web.Server) -> None:
        self.server = server
        self.http = http
        self._loop = asyncio.get_running_loop()
        # Whom the parser asks to pause the reading of a body: bodies are not read here.
        self._null_protocol = BaseProtocol(self._loop)

    def __call__(self) -> PendingConnection:
        return PendingConnection(self)

    def parser(self) -> HttpRequestParser:
        # One request is looked at. (With a queue of one the parser would lose what follows an upgrade.)
        return HttpRequestParser(
            self._null_protocol,
            self._loop,
            _HEAD_LIMIT,
            auto_decompress=False,
            max_msg_queue_size=2,
        )


class PendingConnection(asyncio.Protocol):
    """One accepted connection until it is known what it is."""

    __slots__ = ("_acceptor", "_handler", "_head", "_parser", "transport")

    def __init__(self, acceptor: Acceptor) -> None:
        self._acceptor = acceptor
        self._handler: RequestHandler | None = None
        self._head = b""
        self._parser: HttpRequestParser | None = acceptor.parser()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports only look like asyncio.Transport.
        self.transport = cast(asyncio.Transport, transport)
        self._acceptor.server.watch(self)

    def data_received(self, data: bytes) -> None:
        parser, transport = self._parser, self.transport
        if parser is None or transport is None or transport.is_closing():
            return
        self._head += data
        try:
            messages, is_upgraded, tail = parser.feed_data(data)
        except HttpProcessingError:
            self._hand_over(transport)
            return
        if messages:
            self._found(transport, messages[0][0], tail, is_upgraded=is_upgraded)
        elif len(self._head) > _HEAD_LIMIT:
            self._acceptor.server.bad_http()
            self._refuse(transport, _TOO_LARGE, f"a head may have {_HEAD_LIMIT} bytes")

    def _found(
        self,
        transport: asyncio.Transport,
        message: RawRequestMessage,
        tail: bytes,
        *,
        is_upgraded: bool,
    ) -> None:
        server = self._acceptor.server
        if not handshake.is_for_us(message):
            self._hand_over(transport)
        elif refusal := server.refusal(message, is_upgraded=is_upgraded):
            self._refuse(transport, refusal.status, refusal.text)
        else:
            self._forget()
            server.enter(transport, message, tail)

    def _refuse(self, transport: asyncio.Transport, status: HTTPStatus, text: str) -> None:
        """Answer, and wait until the peer has gone; what else it says is not looked at.

        A socket that is closed with something unread takes the answer along. `end` bounds the wait.
        """
        self._head, self._parser = b"", None
        transport.write(handshake.refused(status, text))
        transport.write_eof()

    def _hand_over(self, transport: asyncio.Transport) -> None:
        """Let aiohttp answer, as if everything had come to it."""
        handler = self._handler = self._acceptor.http()
        head = self._head
        self._forget()
        transport.set_protocol(handler)
        handler.connection_made(transport)
        handler.data_received(head)

    def _forget(self) -> None:
        self._head, self._parser, self.transport = b"", None, None

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()

    def end(self) -> None:
        """The time in which it should have become a WebSocket is over."""
        if self.transport is not None:
            self.transport.abort()
        elif self._handler is not None and self._handler.transport is not None:
            self._handler.force_close()
