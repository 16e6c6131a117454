"""The WebSocket handshake (RFC 6455, section 4.2): what a request must have, and the answers to it.

Rules of this file: no socket, no clock. Requests come parsed, by aiohttp's parser in C.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from http import HTTPStatus

from aiohttp import hdrs
from aiohttp.http import RawRequestMessage

PATH = "/connection/websocket"
SUBPROTOCOL = "centrifuge-json"

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16


def is_for_us(message: RawRequestMessage) -> bool:
    """Whether a request asks for the WebSocket address."""
    return message.path.partition("?")[0] == PATH


def fault(message: RawRequestMessage) -> str:
    """What is wrong with a request for a WebSocket, in words; "" when nothing is."""
    headers = message.headers
    if message.method != "GET":
        return "the method must be GET"
    if not message.upgrade or headers.get(hdrs.UPGRADE, "").strip().lower() != "websocket":
        return "only WebSockets: send 'Connection: Upgrade' and 'Upgrade: websocket'"
    if headers.get(hdrs.SEC_WEBSOCKET_VERSION) != "13":
        return "Sec-WebSocket-Version must be 13"
    if message.chunked or headers.get(hdrs.CONTENT_LENGTH, "0") != "0":
        return "a handshake has no body"
    if not _is_key(headers.get(hdrs.SEC_WEBSOCKET_KEY, "")):
        return f"Sec-WebSocket-Key must be {_KEY_BYTES} bytes in base64"
    if _wants_protobuf(message):
        return "this server speaks JSON, not Protobuf"
    return ""


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
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


def refused(status: int, text: str) -> bytes:
    """An answer after which the connection is closed."""
    body = text.encode() + b"\n"
    # nginx goes on to the next worker; whoever is no nginx is to come back later.
    retry = b"Retry-After: 1\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else b""
    return (
        b"HTTP/1.1 %d %b\r\nContent-Type: text/plain; charset=utf-8\r\n%b"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n%b"
    ) % (status, HTTPStatus(status).phrase.encode(), retry, len(body), body)
