"""The WebSocket handshake (RFC 6455, section 4.2): what a request must have, and the responses to it.

Rules of this file: no socket, no clock. Requests arrive parsed, by aiohttp's parser in C.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple, Protocol

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion, HttpVersion11, RawRequestMessage
from multidict import CIMultiDictProxy
from yarl import URL

PATH = "/connection/websocket"
PROTOBUF_SUBPROTOCOL = "centrifuge-protobuf"

#: The one that a client gets which offers both comes first.
SUBPROTOCOLS = ("centrifuge-json", PROTOBUF_SUBPROTOCOL)

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16

#: A name, an IPv4 or an IPv6 address, and a port (RFC 9110, section 7.2); it may be empty.
_HOST = re.compile(r"(?:[\w.~!$&'()*+;=%-]*|\[[\w.:~!$&'()*+;=%-]+\])(?::[0-9]*)?", re.ASCII)


class HandshakeRequest(Protocol):
    """What is read of a request; aiohttp's `RawRequestMessage` has all of it."""

    @property
    def method(self) -> str: ...

    @property
    def version(self) -> HttpVersion: ...

    @property
    def headers(self) -> CIMultiDictProxy[str]: ...

    @property
    def url(self) -> URL: ...


class ParsedRequest(NamedTuple):
    """A `HandshakeRequest` made of a request that aiohttp has begun to handle."""

    method: str
    version: HttpVersion
    headers: CIMultiDictProxy[str]
    url: URL

    @classmethod
    def of(cls, request: web.BaseRequest) -> ParsedRequest:
        return cls(request.method, request.version, request.headers, request.rel_url)


class Fault(NamedTuple):
    """What is wrong with a handshake: the HTTP status, and a sentence."""

    status: HTTPStatus
    text: str


def is_websocket_path(message: RawRequestMessage) -> bool:
    """Whether a request is for the WebSocket endpoint, however its path is written.

    `%2F` is no slash, as for the application's router.
    """
    return message.path.partition("?")[0] == PATH or message.url.path_safe == PATH


def tokens(headers: CIMultiDictProxy[str], name: str) -> Iterator[str]:
    """The members of a header that is a list, which may come in several lines."""
    for line in headers.getall(name, ()):
        yield from (token.strip(" \t") for token in line.split(","))


def fault(message: HandshakeRequest, *, is_upgraded: bool) -> Fault | None:
    """Return what is wrong with a request for a WebSocket, or None.

    Args:
        is_upgraded: whether the HTTP parser treats what follows the request as another protocol.
    """
    # One at most (RFC 6455, section 11.3.5).
    if message.headers.getall(hdrs.SEC_WEBSOCKET_VERSION, ["13"]) != ["13"]:
        return Fault(HTTPStatus.UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13")
    text = _mistake(message, is_upgraded=is_upgraded)
    return Fault(HTTPStatus.BAD_REQUEST, text) if text else None


def _mistake(message: HandshakeRequest, *, is_upgraded: bool) -> str:
    headers = message.headers
    if message.method != "GET":
        return "the method must be GET"
    if message.version != HttpVersion11:
        return "the version of HTTP must be 1.1"
    if hdrs.TRANSFER_ENCODING in headers or headers.get(hdrs.CONTENT_LENGTH, "0") != "0":
        return "a handshake has no body"
    if message.url.raw_fragment:
        return "the URL of a WebSocket has no fragment"
    upgrades = headers.getall(hdrs.UPGRADE, ())
    if not is_upgraded or len(upgrades) != 1 or upgrades[0].lower() != "websocket":
        return "only WebSockets: send 'Connection: Upgrade' and 'Upgrade: websocket'"
    if hdrs.SEC_WEBSOCKET_VERSION not in headers:
        return "Sec-WebSocket-Version must be 13"
    if len(headers.getall(hdrs.HOST, ())) != 1 or not _HOST.fullmatch(headers[hdrs.HOST]):
        return "one Host is needed: a name or an address, and a port"
    if len(headers.getall(hdrs.ORIGIN, ())) > 1:
        return "a request has one Origin at most"
    if not _is_key(headers.getall(hdrs.SEC_WEBSOCKET_KEY, ())):
        return f"one Sec-WebSocket-Key is needed, {_KEY_BYTES} bytes in base64"
    return ""


def _is_key(keys: Sequence[str]) -> bool:
    if len(keys) != 1:
        return False
    try:
        return len(base64.b64decode(keys[0], validate=True)) == _KEY_BYTES
    except ValueError:
        return False


def subprotocol(message: HandshakeRequest) -> str:
    """The subprotocol that a request gets of those that it offers, "" for none."""
    if hdrs.SEC_WEBSOCKET_PROTOCOL not in message.headers:
        return ""
    offered = set(tokens(message.headers, hdrs.SEC_WEBSOCKET_PROTOCOL))
    return next((name for name in SUBPROTOCOLS if name in offered), "")


def wants_protobuf(message: HandshakeRequest) -> bool:
    """Whether a client speaks Protobuf: by its subprotocol, or by the URL."""
    query = message.url.query
    if "protobuf" in (query.get("format"), query.get("cf_protocol")):
        return True
    return subprotocol(message) == PROTOBUF_SUBPROTOCOL


def accepted(message: HandshakeRequest) -> bytes:
    """The response to a request without a fault; what follows it are WebSocket frames."""
    headers = message.headers
    digest = hashlib.sha1(headers[hdrs.SEC_WEBSOCKET_KEY].encode() + _GUID, usedforsecurity=False)
    agreed = b""
    if name := subprotocol(message):
        agreed = b"Sec-WebSocket-Protocol: %b\r\n" % name.encode()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (base64.b64encode(digest.digest()), agreed)
    )


_MORE_HEADERS: Mapping[HTTPStatus, Mapping[str, str]] = {
    # nginx tries the next worker; other clients are asked to try again.
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "1"},
    # nginx passes it on: another worker would say the same.
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": "1"},
    HTTPStatus.UPGRADE_REQUIRED: {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
}


def refused(status: HTTPStatus, text: str, *, has_body: bool = True) -> bytes:
    """The bytes of a response after which the connection is closed; one to a HEAD has no body."""
    body = text.encode(errors="backslashreplace") + b"\n"
    more = "".join(f"{name}: {value}\r\n" for name, value in _MORE_HEADERS.get(status, {}).items())
    return (
        b"HTTP/1.1 %d %b\r\nContent-Type: text/plain; charset=utf-8\r\n%b"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n%b"
    ) % (status, status.phrase.encode(), more.encode(), len(body), body if has_body else b"")


def refusal_response(status: HTTPStatus, text: str) -> web.Response:
    """The same response for aiohttp to write."""
    response = web.Response(status=status, text=f"{text}\n", headers=_MORE_HEADERS.get(status))
    response.force_close()
    return response
