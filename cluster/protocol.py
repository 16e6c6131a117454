"""The codec of the Centrifuge client protocol (JSON, version 2) and of WebSocket frames.

Rules
- No connection, clock or channel state.
- Zero values are omitted from what is sent, except the result key of a successful reply.
- Malformed input raises the `Disconnect` that the protocol requires.
- Payloads (`data`) are any JSON and are never inspected.
- Only this module encodes WebSocket frames.

Source: centrifugal/protocol `client.proto`; RFC 6455 for the frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import orjson

from cluster.errors import (
    BAD_REQUEST,
    BAD_REQUEST_CLOSE,
    BAD_TEXT,
    ClientError,
    Disconnect,
    Unsubscribe,
)
from cluster.methods import METHODS

_ID_LIMIT = 2**32
_OFFSET_LIMIT = 2**53

_METHODS_SET: Final = frozenset(METHODS)

REJECT_UNRECOVERED: Final = 1 << 1
"""Bit of `subscribe.flag`: answer error 112 instead of `recovered: false`."""


class _Missing:
    """The type of `MISSING`, which stands for an absent key; JSON null is a value."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


class Command(NamedTuple):
    """One command of a client; `method` is "pong" for an answer to a ping."""

    id: int
    method: str
    params: dict[str, Any]


PONG: Final = Command(0, "pong", {})


class Position(NamedTuple):
    """A position in a channel's stream; offset 0 with an empty epoch stands for no position."""

    offset: int
    epoch: str


class Publication(NamedTuple):
    """One publication, as the broker delivers it.

    Attributes:
        offset: its number in the stream, 0 in a channel without history.
        epoch: the stream's epoch, "" in a channel without history.
        body: the Publication as a JSON object, without its offset.
        accepted_ms: Unix time at which a worker accepted it, 0 when unknown (read from a stream).
    """

    offset: int
    epoch: str
    body: bytes
    accepted_ms: int = 0


class ConnectRequest(NamedTuple):
    token: str
    data: Any
    subs: dict[str, Position]
    name: str


class SubscribeRequest(NamedTuple):
    channel: str
    token: str
    recover: bool
    position: Position
    positioned: bool
    recoverable: bool
    rejects_unrecovered: bool


class HistoryRequest(NamedTuple):
    channel: str
    limit: int
    since: Position | None
    reverse: bool


# --- reading -----------------------------------------------------------------------------


def decode(payload: bytes) -> list[Command]:
    """Decode one WebSocket message: JSON documents separated by newlines.

    One newline at the end is allowed.

    Raises:
        Disconnect: 3501 for anything that is not a list of commands, 1007 for invalid UTF-8.
    """
    if payload.endswith(b"\n"):
        payload = payload[:-1]
    try:
        if b"\n" in payload:
            return [_command(orjson.loads(line)) for line in payload.split(b"\n")]
        return [_command(orjson.loads(payload))]
    except orjson.JSONDecodeError:
        raise _decode_error(payload).fresh() from None


def _decode_error(payload: bytes) -> Disconnect:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return BAD_TEXT
    return BAD_REQUEST_CLOSE


def _command(document: Any) -> Command:
    if type(document) is not dict:
        raise BAD_REQUEST_CLOSE.fresh()
    number = document.get("id", 0)
    if type(number) is not int or not 0 <= number < _ID_LIMIT:
        raise BAD_REQUEST_CLOSE.fresh()
    method = _method(document)
    if number == 0 and method != "send":
        # Like Centrifugo: any command without an id, except `send`, is a pong.
        return PONG
    if method is None:
        raise BAD_REQUEST_CLOSE.fresh()
    params = document[method]
    if type(params) is not dict:
        raise BAD_REQUEST_CLOSE.fresh()
    return Command(number, method, params)


def _method(document: dict[str, Any]) -> str | None:
    found = [key for key in document if key in _METHODS_SET and document[key] is not None]
    if len(found) == 1:
        return found[0]
    return min(found, key=METHODS.index, default=None)


def _param(params: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    value = params.get(name)
    if value is None:
        return default
    if type(value) is not kind:
        raise BAD_REQUEST_CLOSE.fresh()
    return value


def _offset_param(params: dict[str, Any]) -> int:
    offset: int = _param(params, "offset", int, 0)
    if not 0 <= offset < _OFFSET_LIMIT:
        raise BAD_REQUEST_CLOSE.fresh()
    return offset


def _channel_param(params: dict[str, Any]) -> str:
    channel: str = _param(params, "channel", str, "")
    if not channel:
        raise BAD_REQUEST_CLOSE.fresh()
    return channel


def connect_request(params: dict[str, Any]) -> ConnectRequest:
    """Read the parameters of `connect`; raises `Disconnect` 3501 if a type is wrong."""
    subs = {}
    for channel, sub in _param(params, "subs", dict, {}).items():
        if type(sub) is not dict:
            raise BAD_REQUEST_CLOSE.fresh()
        if _param(sub, "recover", bool, False):
            subs[channel] = Position(_offset_param(sub), _param(sub, "epoch", str, ""))
    return ConnectRequest(
        _param(params, "token", str, ""), params.get("data"), subs, _param(params, "name", str, "")
    )


def subscribe_request(params: dict[str, Any]) -> SubscribeRequest:
    """Read the parameters of `subscribe`; raises `Disconnect` 3501 if a type is wrong."""
    delta = _param(params, "delta", str, "")
    if delta not in {"", "fossil"}:
        raise BAD_REQUEST_CLOSE.fresh()
    flag = _param(params, "flag", int, 0)
    return SubscribeRequest(
        _channel_param(params),
        _param(params, "token", str, ""),
        _param(params, "recover", bool, False),
        Position(_offset_param(params), _param(params, "epoch", str, "")),
        _param(params, "positioned", bool, False),
        _param(params, "recoverable", bool, False),
        bool(flag & REJECT_UNRECOVERED),
    )


def channel_request(params: dict[str, Any]) -> str:
    """Read the parameters of a command that has only a channel."""
    return _channel_param(params)


def publish_request(params: dict[str, Any]) -> tuple[str, bytes]:
    """Read `publish`: the channel and its data as JSON without newlines.

    Raises:
        Disconnect: 3501 without a channel.
        ClientError: 107 without data, or with data nested too deeply to be encoded.
    """
    channel = _channel_param(params)
    return channel, data_json(params)


def data_json(params: dict[str, Any]) -> bytes:
    """Return `data` as compact JSON; raises `ClientError` 107 if absent or nested too deeply."""
    data = params.get("data", MISSING)
    if data is MISSING:
        raise BAD_REQUEST.fresh()
    try:
        return orjson.dumps(data)
    except orjson.JSONEncodeError:
        # orjson decodes 1,024 levels of nesting but encodes only 254.
        raise BAD_REQUEST.fresh() from None


def history_request(params: dict[str, Any]) -> HistoryRequest:
    """Read `history`.

    Raises:
        Disconnect: 3501 if a type is wrong.
        ClientError: 107 for a backward read from offset 0.
    """
    limit = _param(params, "limit", int, 0)
    reverse = _param(params, "reverse", bool, False)
    since_params = _param(params, "since", dict, None)
    since = None
    if since_params is not None:
        since = Position(_offset_param(since_params), _param(since_params, "epoch", str, ""))
        if reverse and since.offset == 0:
            raise BAD_REQUEST.fresh()
    return HistoryRequest(_channel_param(params), max(limit, -1), since, reverse)


# --- writing -----------------------------------------------------------------------------


def reply(number: int, method: str, result: dict[str, Any] | None = None) -> bytes:
    """Encode a successful reply; its result key is present even if empty."""
    if not result:
        return b'{"id":%d,"%s":{}}' % (number, method.encode())
    return orjson.dumps({"id": number, method: result})


def error_reply(number: int, error: ClientError) -> bytes:
    """Encode an error reply."""
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.temporary:
        body["temporary"] = True
    return orjson.dumps({"id": number, "error": body})


def publication_body(data: bytes, user: str, client: str, info: Any) -> bytes:
    """Encode a client's publication: its data (JSON) and the info of its publisher."""
    client_info: dict[str, Any] = {"user": user, "client": client}
    if info is not None:
        client_info["conn_info"] = info
    return b'{"data":%b,"info":%b}' % (data, orjson.dumps(client_info))


def server_publication_body(params: dict[str, Any], tags: dict[str, str] | None) -> bytes:
    """Encode a publication of the server API: its data and tags, without a publisher.

    Raises:
        ClientError: 107 without data.
    """
    data = data_json(params)
    if not tags:
        return b'{"data":%b}' % data
    return b'{"data":%b,"tags":%b}' % (data, orjson.dumps(tags))


def publication_json(publication: Publication) -> bytes:
    """Add the offset to a publication, and the epoch if it is the first of its stream."""
    offset = publication.offset
    if not offset:
        return publication.body
    if offset == 1:
        return b'%b,"offset":1,"epoch":"%b"}' % (
            publication.body[:-1],
            publication.epoch.encode(),
        )
    return b'%b,"offset":%d}' % (publication.body[:-1], offset)


def publications_json(publications: Iterable[Publication]) -> list[orjson.Fragment]:
    """Encode publications for a reply."""
    return [orjson.Fragment(publication_json(publication)) for publication in publications]


def push_prefix(channel: str) -> bytes:
    """Return the start of a push of this channel, up to the publication."""
    return b'{"push":{"channel":%b,"pub":' % orjson.dumps(channel)


def push_frame(prefix: bytes, publication: Publication) -> bytes:
    """Encode the frame of a publication push: once, for all subscribers."""
    return text_frame(b"%b%b}}" % (prefix, publication_json(publication)))


def unsubscribe_push(channel: str, why: Unsubscribe) -> bytes:
    """Encode the push for a subscription that the server ended."""
    body = {"code": why.code, "reason": why.reason}
    return orjson.dumps({"push": {"channel": channel, "unsubscribe": body}})


def subscribe_push(channel: str, result: dict[str, Any]) -> bytes:
    """Encode the push for a subscription that the server made."""
    return orjson.dumps({"push": {"channel": channel, "subscribe": result}})


def message_push(data: Any) -> bytes:
    """Encode a message of the server to one connection."""
    return orjson.dumps({"push": {"message": {"data": data}}})


# --- WebSocket frames of a server: never masked, never fragmented (RFC 6455 §5.2) -----------


def _frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return b"%c%c%b" % (first, size, payload)
    if size < 65536:
        return b"%c\x7e%b%b" % (first, size.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (first, size.to_bytes(8, "big"), payload)


def text_frame(payload: bytes) -> bytes:
    """Encode a text frame."""
    return _frame(0x81, payload)


def close_frame(code: int, reason: str) -> bytes:
    """Encode a close frame; the reason is cut, between characters, to fit a control frame."""
    cut = reason.encode()[:123].decode(errors="ignore").encode()
    return _frame(0x88, code.to_bytes(2, "big") + cut)


def native_ping_frame() -> bytes:
    """Encode a WebSocket ping, for clients that requested it (`cf_ws_frame_ping_pong`)."""
    return _frame(0x89, b"")


def native_pong_frame(payload: bytes) -> bytes:
    """Encode the answer to a client's WebSocket ping."""
    return _frame(0x8A, payload[:125])


PING_FRAME: Final = text_frame(b"{}")
