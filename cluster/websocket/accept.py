"""An accepted connection until its first request is known: a handshake, or other HTTP.

A handshake for the WebSocket endpoint is answered here, because after a roll or a crash all clients
reconnect at once and the cost of a handshake decides how long that takes (docs/adr/0007). All other
HTTP belongs to the worker's `aiohttp.web.Application`: its server takes over the connection, with
what has arrived. A handshake that follows another request on a kept-alive connection reaches
`upgrade_kept_alive`, a handler of that application.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Protocol, cast

from aiohttp import hdrs, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpRequestParser, RawRequestMessage

from cluster.http_connection import (
    HEAD_LIMIT_BYTES,
    HEAD_TOO_LONG,
    PIECE_BYTES,
    LingeringConnection,
)
from cluster.lingering import lingering_of, send_eof
from cluster.turns import turns_of
from cluster.websocket import handshake
from cluster.websocket.address_limits import Refusal
from cluster.websocket.handshake import HandshakeRequest
from cluster.websocket.server import Pending

_TOO_LARGE = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE

_MOST_REASON_CHARACTERS = 200


class AcceptingServer(Protocol):
    """What an acceptor needs of the server whose connections it accepts; see `WebSocketServer`."""

    def watch(self, pending: Pending, transport: asyncio.Transport, others: int) -> bool: ...

    def ended(self, pending: Pending) -> None: ...

    def bad_http(self) -> None: ...

    def refusal(
        self,
        message: HandshakeRequest,
        transport: asyncio.Transport | None,
        *,
        is_upgraded: bool,
        is_admitted: bool = True,
    ) -> Refusal | None: ...

    def accept(
        self, transport: asyncio.Transport, message: HandshakeRequest, tail: bytes
    ) -> None: ...


class Acceptor:
    """Makes a `PendingConnection` for each accepted connection, as `loop.create_server` wants.

    Args:
        http: the server of the worker's application.
    """

    def __init__(self, server: AcceptingServer, http: web.Server) -> None:
        self.server = server
        self.http = http
        self.loop = asyncio.get_running_loop()
        # The parser asks this protocol to pause reading for a long body; bodies are not read here.
        self._null_protocol = BaseProtocol(self.loop)

    def __call__(self) -> PendingConnection:
        return PendingConnection(self)

    def parser(self) -> HttpRequestParser:
        # Only one request is parsed. With a queue of one the parser would lose what follows an upgrade.
        return HttpRequestParser(
            self._null_protocol,
            self.loop,
            HEAD_LIMIT_BYTES,
            auto_decompress=False,
            # The head's limit is checked as a whole; one field may be nearly all of it.
            max_line_size=HEAD_LIMIT_BYTES,
            max_field_size=HEAD_LIMIT_BYTES,
            max_msg_queue_size=2,
        )


class PendingConnection(asyncio.Protocol):
    """One accepted connection until its first request has arrived."""

    __slots__ = (
        "_acceptor",
        "_discarded",
        "_head",
        "_is_admitted",
        "_parsed",
        "_parser",
        "transport",
    )

    def __init__(self, acceptor: Acceptor) -> None:
        self._acceptor = acceptor
        self._head = b""
        self._parsed = 0
        self._discarded = 0
        self._is_admitted = True
        self._parser: HttpRequestParser | None = acceptor.parser()
        self.transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        """Whether its request may still arrive."""
        return self._parser is not None and self.transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports only look like asyncio.Transport.
        self.transport = cast(asyncio.Transport, transport)
        others = len(self._acceptor.http.connections)
        self._is_admitted = self._acceptor.server.watch(self, self.transport, others)

    def data_received(self, data: bytes) -> None:
        parser, transport = self._parser, self.transport
        if parser is None or transport is None or transport.is_closing():
            self._discard(data)
            return
        self._head += data
        self._parse(parser, transport)

    def begin_turn(self) -> None:
        """Parse the next piece of a long head, and read again if nothing is left."""
        parser, transport = self._parser, self.transport
        if parser is None or transport is None or transport.is_closing():
            return
        transport.resume_reading()
        self._parse(parser, transport)

    def _parse(self, parser: HttpRequestParser, transport: asyncio.Transport) -> None:
        """Parse a piece of the head, of a body hardly more than nothing; the rest waits for its turn."""
        # A longer head is refused, so no more of it is parsed.
        end = min(len(self._head), self._parsed + PIECE_BYTES, HEAD_LIMIT_BYTES + 1)
        try:
            messages, is_upgraded, tail = parser.feed_data(self._head[self._parsed : end])
        except HttpProcessingError as error:
            # Not aiohttp's to answer: it would read all that such a client goes on to send.
            text = f"no valid HTTP: {_first_line(error)}"
            self._refuse_bad_http(transport, HTTPStatus.BAD_REQUEST, text)
            return
        self._parsed = end
        if messages:
            self._found(transport, messages[0][0], tail + self._head[end:], is_upgraded=is_upgraded)
        elif end > HEAD_LIMIT_BYTES:
            self._refuse_bad_http(transport, _TOO_LARGE, HEAD_TOO_LONG)
        elif end < len(self._head):
            transport.pause_reading()
            turns_of(self._acceptor.loop).add(self)

    def _found(
        self,
        transport: asyncio.Transport,
        message: RawRequestMessage,
        tail: bytes,
        *,
        is_upgraded: bool,
    ) -> None:
        server = self._acceptor.server
        if not handshake.is_websocket_path(message):
            self._hand_over(transport)
        elif refusal := server.refusal(
            message, transport, is_upgraded=is_upgraded, is_admitted=self._is_admitted
        ):
            has_body = message.method != hdrs.METH_HEAD
            self._refuse(transport, refusal.status, refusal.text, has_body=has_body)
        else:
            self._release()
            server.ended(self)
            server.accept(transport, message, tail)

    def _refuse_bad_http(self, transport: asyncio.Transport, status: HTTPStatus, text: str) -> None:
        """Answer, read nothing more, and close when the client has had time to read the answer."""
        self._acceptor.server.bad_http()
        self._answer(transport, status, text)
        lingering_of(self._acceptor.loop).add(transport)

    def _refuse(
        self, transport: asyncio.Transport, status: HTTPStatus, text: str, *, has_body: bool = True
    ) -> None:
        """Answer, and wait until the client has closed; what else it sends is thrown away.

        Closing a socket with unread data would discard the response. `expire` bounds the wait, and
        `HEAD_LIMIT_BYTES` what is read meanwhile.
        """
        self._answer(transport, status, text, has_body=has_body)
        send_eof(transport)

    def _answer(
        self, transport: asyncio.Transport, status: HTTPStatus, text: str, *, has_body: bool = True
    ) -> None:
        self._head, self._parser, self._discarded = b"", None, 0
        transport.write(handshake.refused(status, text, has_body=has_body))

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > HEAD_LIMIT_BYTES and self.transport is not None:
            self.transport.abort()

    def _hand_over(self, transport: asyncio.Transport) -> None:
        """Let aiohttp serve this connection, as if everything had arrived there."""
        handler = self._acceptor.http()
        head = self._head
        self._release()
        self._acceptor.server.ended(self)
        transport.set_protocol(handler)
        handler.connection_made(transport)
        handler.data_received(head)

    def _release(self) -> None:
        self._head, self._parser, self.transport = b"", None, None

    def connection_lost(self, exc: Exception | None) -> None:
        self._release()
        self._acceptor.server.ended(self)

    def expire(self) -> None:
        """Close the connection: its request did not arrive in time."""
        if self.transport is not None:
            self.transport.abort()


def _first_line(error: HttpProcessingError) -> str:
    """What is wrong, without the bytes that the parser shows below it."""
    return error.message.partition("\n")[0][:_MOST_REASON_CHARACTERS]


class _Tail:
    """Takes what arrived behind a request, in the way aiohttp hands it to a WebSocket reader."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """Called when aiohttp lets the connection go."""


def upgrade_kept_alive(
    server: AcceptingServer,
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Make the application's handler for handshakes that are not their connection's first request.

    nginx may send one over a connection that it has kept alive.
    """

    async def upgrade(request: web.Request) -> web.StreamResponse:
        message = handshake.ParsedRequest.of(request)
        options = handshake.tokens(request.headers, hdrs.CONNECTION)
        is_upgraded = "upgrade" in (option.lower() for option in options)
        transport = request.transport
        refusal = server.refusal(message, transport, is_upgraded=is_upgraded)
        if refusal is not None:
            return handshake.refusal_response(refusal.status, refusal.text)
        if transport is not None:
            tail = _detach(request)
            server.accept(transport, message, tail)
        # aiohttp finds its connection lost and writes nothing; the access log shows the status.
        return web.Response(status=HTTPStatus.SWITCHING_PROTOCOLS)

    return upgrade


def _detach(request: web.Request) -> bytes:
    """Take the connection away from aiohttp without closing it; returns what came after the request."""
    handler, tail = cast(LingeringConnection, request.protocol), _Tail()
    handler.set_parser(tail)  # type: ignore[arg-type]
    handler.release()
    return tail.data
