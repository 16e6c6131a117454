"""The WebSocket handshake (RFC 6455, section 4.2): what a request must have, and the answers to it.

Rules of this file: no socket, no clock. Requests come parsed, by aiohttp's parser in C.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

from aiohttp import hdrs
from aiohttp.http import HttpVersion11, RawRequestMessage

PATH = "/connection/websocket"
SUBPROTOCOL = "centrifuge-json"

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16


class Fault(NamedTuple):
    """What is wrong with a handshake: HTTP status, and words."""

    status: HTTPStatus
    text: str


def is_for_us(message: RawRequestMessage) -> bool:
    """Whether a request asks for the WebSocket address, in whatever spelling."""
    return message.path.partition("?")[0] == PATH or message.url.path == PATH


def fault(message: RawRequestMessage, *, is_upgraded: bool) -> Fault | None:
    """What is wrong with a request for a WebSocket, None when nothing is.

    Args:
        is_upgraded: what the parser said: whether it takes what follows for something else than HTTP.
    """
    if message.headers.get(hdrs.SEC_WEBSOCKET_VERSION, "13") != "13":
        return Fault(HTTPStatus.UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13")
    words = _what_is_bad(message, is_upgraded=is_upgraded)
    return Fault(HTTPStatus.BAD_REQUEST, words) if words else None


def _what_is_bad(message: RawRequestMessage, *, is_upgraded: bool) -> str:
    headers = message.headers
    if message.method != "GET":
        return "the method must be GET"
    if message.version != HttpVersion11:
        return "the version of HTTP must be 1.1"
    if hdrs.TRANSFER_ENCODING in headers or headers.get(hdrs.CONTENT_LENGTH, "0") != "0":
        return "a handshake has no body"
    if not is_upgraded or headers.get(hdrs.UPGRADE, "").strip().lower() != "websocket":
        return "only WebSockets: send 'Connection: Upgrade' and 'Upgrade: websocket'"
    if hdrs.SEC_WEBSOCKET_VERSION not in headers:
        return "Sec-WebSocket-Version must be 13"
    if not _is_key(headers.getall(hdrs.SEC_WEBSOCKET_KEY, ())):
        return f"one Sec-WebSocket-Key is needed, {_KEY_BYTES} bytes in base64"
    if _wants_protobuf(message):
        return "this server speaks JSON, not Protobuf"
    return ""


def _is_key(keys: Sequence[str]) -> bool:
    if len(keys) != 1:
        return False
    try:
        return len(base64.b64decode(keys[0], validate=True)) == _KEY_BYTES
    except ValueError:
        return False


def _wants_protobuf(message: RawRequestMessage) -> bool:
    if "centrifuge-protobuf" in message.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, ""):
        return True
    query = message.url.query
    return "protobuf" in (query.get("format"), query.get("cf_protocol"))


def accepted(message: RawRequestMessage) -> bytes:
    """The answer to a request without fault: the socket is a WebSocket behind it."""
    headers = message.headers
    digest = hashlib.sha1(headers[hdrs.SEC_WEBSOCKET_KEY].encode() + _GUID, usedforsecurity=False)
    offered = headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, "")
    subprotocol = b""
    if SUBPROTOCOL in [one.strip() for one in offered.split(",")]:
        subprotocol = b"Sec-WebSocket-Protocol: %b\r\n" % SUBPROTOCOL.encode()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (base64.b64encode(digest.digest()), subprotocol)
    )


_MORE_HEADERS = {
    # nginx tries the next worker; others are asked to come back.
    HTTPStatus.SERVICE_UNAVAILABLE: b"Retry-After: 1\r\n",
    HTTPStatus.UPGRADE_REQUIRED: b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
}


def refused(status: HTTPStatus, text: str) -> bytes:
    """An answer after which the connection is closed."""
    body = text.encode() + b"\n"
    return (
        b"HTTP/1.1 %d %b\r\nContent-Type: text/plain; charset=utf-8\r\n%b"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n%b"
    ) % (status, status.phrase.encode(), _MORE_HEADERS.get(status, b""), len(body), body)
