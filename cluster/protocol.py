"""The codec of the Centrifuge client protocol (JSON, version 2) and of WebSocket frames.

Rules
- No connection, clock or channel state.
- Zero values are omitted from what is sent, except the result key of a successful reply.
- Malformed input raises the `Disconnect` that the protocol requires.
- Payloads (`data`) are any JSON, are never inspected, and leave as they came: see `json_text`.
- Only this module encodes WebSocket frames.

Source: centrifugal/protocol `client.proto`; RFC 6455 for the frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from cluster import json_text
from cluster.command_params import (
    NO_HEADERS,
    PARAMS,
    ConnectParams,
    HistoryParams,
    NoParams,
    PositionParams,
    PublishParams,
    RpcParams,
    SendParams,
    SubscribeParams,
)
from cluster.decoding_in_parts import in_parts
from cluster.errors import BAD_REQUEST, BAD_REQUEST_CLOSE, BAD_TEXT, ClientError
from cluster.methods import METHODS

_ID_LIMIT = 2**32
_NEWLINE: Final = ord("\n")
_OFFSET_LIMIT = 2**53

REJECT_UNRECOVERED: Final = 1 << 1
"""Bit of `subscribe.flag`: answer error 112 instead of `recovered: false`."""


class Command(msgspec.Struct, frozen=True, gc=False):
    """One command of a client; `method` is "pong" for an answer to a ping.

    Attributes:
        params: one of the structures below, as the method needs it.
    """

    id: int
    method: str
    params: Any


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
    """Parameters of `connect`; `subs` has positions to recover server-side subscriptions from."""

    token: str
    data: bytes
    subs: dict[str, Position | None]
    name: str
    version: str = ""
    headers: Mapping[str, str | None] = NO_HEADERS


class SubscribeRequest(NamedTuple):
    channel: str
    token: str
    recover: bool
    position: Position
    positioned: bool
    recoverable: bool
    rejects_unrecovered: bool
    join_leave: bool = False
    tags_filter: bytes = b""
    delta: bool = False
    data: bytes = b""


class HistoryRequest(NamedTuple):
    channel: str
    limit: int
    since: Position | None
    reverse: bool


# --- reading -----------------------------------------------------------------------------

PONG: Final = Command(0, "pong", NoParams())
# Like centrifuge: a ping alone is no command it knows; beside another, it comes first and is refused.
_OTHERS: Final = tuple(method for method in METHODS if method != "ping")

_COMMANDS: Final[json_text.JsonDecoder[Any]] = json_text.JsonDecoder(
    msgspec.defstruct(
        "_Envelope",
        [("id", int, 0), *((method, PARAMS[method] | None, None) for method in METHODS)],
        gc=False,
    ),
    replaces_surrogates=True,
)


def decode(payload: bytes) -> Iterable[Command]:
    """Decode one WebSocket message: JSON documents separated by newlines.

    One newline at the end is allowed. Many commands come as an iterator (`in_parts`).

    Raises:
        Disconnect: 3501 for anything that is not a list of commands, 1007 for invalid UTF-8. The
            iterator raises it where it finds the fault.
    """
    payload = payload.removesuffix(b"\n")
    try:
        if not payload.isascii():
            payload.decode()
        if len(payload) > 2 * json_text.PARSED_NESTING and json_text.is_too_deep(
            payload, json_text.PARSED_NESTING
        ):
            raise BAD_REQUEST_CLOSE.fresh()
    except UnicodeDecodeError:
        raise BAD_TEXT.fresh() from None
    if _NEWLINE in payload:
        return in_parts(map(_decode_line, _lines(payload)))
    return [_decode_line(payload)]


def _lines(payload: bytes) -> Iterator[bytes]:
    """The documents of a message, most with the newline behind them.

    They are cut off one by one: those of 64 KiB, cut at once, take four times as much.
    """
    lines = BytesIO(payload)
    return chain(lines, (b"",)) if payload.endswith(b"\n") else lines


def _decode_line(line: bytes) -> Command:
    try:
        return _command(_COMMANDS.decode_plain(line))
    except (msgspec.DecodeError, RecursionError):
        # It has lone surrogates, or is malformed.
        try:
            return _command(_COMMANDS.decode(line))
        except json_text.JsonTextInvalid:
            raise BAD_REQUEST_CLOSE.fresh() from None


def _command(envelope: Any) -> Command:
    number = envelope.id
    if not 0 <= number < _ID_LIMIT:
        raise BAD_REQUEST_CLOSE.fresh()
    method = _method(envelope)
    if number == 0 and method != "send":
        # Like Centrifugo: any command without an id, except `send`, is a pong.
        return PONG
    if not method or (
        method == "ping" and all(getattr(envelope, name) is None for name in _OTHERS)
    ):
        raise BAD_REQUEST_CLOSE.fresh()
    return Command(number, method, getattr(envelope, method))


def _method(envelope: Any) -> str:
    """The first of `METHODS` that a command has, "" if none; a loop over them takes four times as long."""
    return (
        "connect" if envelope.connect is not None
        else "ping" if envelope.ping is not None
        else "subscribe" if envelope.subscribe is not None
        else "unsubscribe" if envelope.unsubscribe is not None
        else "publish" if envelope.publish is not None
        else "presence" if envelope.presence is not None
        else "presence_stats" if envelope.presence_stats is not None
        else "history" if envelope.history is not None
        else "rpc" if envelope.rpc is not None
        else "send" if envelope.send is not None
        else "refresh" if envelope.refresh is not None
        else "sub_refresh" if envelope.sub_refresh is not None
        else ""
    )  # fmt: skip


def _offset_param(params: PositionParams) -> int:
    offset = params.offset or 0
    if not 0 <= offset < _OFFSET_LIMIT:
        raise BAD_REQUEST_CLOSE.fresh()
    return offset


def connect_request(params: ConnectParams) -> ConnectRequest:
    """Read the parameters of `connect`; raises `Disconnect` 3501 for an impossible offset."""
    subs: dict[str, Position | None] = {}
    for channel, sub in (params.subs or {}).items():
        subs[channel] = Position(_offset_param(sub), sub.epoch or "") if sub.recover else None
    token, name, version = params.token or "", params.name or "", params.version or ""
    headers = params.headers or NO_HEADERS
    return ConnectRequest(token, bytes(params.data), subs, name, version, headers)


def subscribe_request(params: SubscribeParams) -> SubscribeRequest:
    """Read the parameters of `subscribe`.

    Raises:
        Disconnect: 3501 without a channel, for an impossible offset or an unknown delta.
        ClientError: 107 for data nested too deeply.
    """
    if params.delta not in {None, "", "fossil"}:
        raise BAD_REQUEST_CLOSE.fresh()
    tags_filter = bytes(params.tf)
    return SubscribeRequest(
        channel_request(params),
        params.token or "",
        bool(params.recover),
        Position(_offset_param(params), params.epoch or ""),
        bool(params.positioned),
        bool(params.recoverable),
        bool((params.flag or 0) & REJECT_UNRECOVERED),
        bool(params.join_leave),
        tags_filter if tags_filter != b"null" else b"",
        bool(params.delta),
        data_text(params) if params.data else b"",
    )


def channel_request(params: Any) -> str:
    """Read the channel of a command; raises `Disconnect` 3501 without one."""
    channel: str | None = params.channel
    if not channel:
        raise BAD_REQUEST_CLOSE.fresh()
    return channel


def publish_request(params: PublishParams) -> tuple[str, bytes]:
    """Read `publish`: the channel and its data, as JSON text without newlines.

    Raises:
        Disconnect: 3501 without a channel.
        ClientError: 107 without data, or with data nested too deeply.
    """
    channel, data = channel_request(params), data_text(params)
    if not data:
        raise BAD_REQUEST.fresh()
    return channel, data


def data_text(params: PublishParams | RpcParams | SendParams | SubscribeParams) -> bytes:
    """Return `data` as it was sent, b"" if absent; raises `ClientError` 107 if nested too deeply."""
    data = bytes(params.data)
    if len(data) > 2 * json_text.MAXIMUM_NESTING and json_text.is_too_deep(data):
        raise BAD_REQUEST.fresh()
    return data


def history_request(params: HistoryParams) -> HistoryRequest:
    """Read `history`.

    Raises:
        Disconnect: 3501 without a channel, or for an impossible offset.
        ClientError: 107 for a backward read from offset 0.
    """
    reverse = bool(params.reverse)
    since = None
    if params.since is not None:
        since = Position(_offset_param(params.since), params.since.epoch or "")
        if reverse and since.offset == 0:
            raise BAD_REQUEST.fresh()
    return HistoryRequest(channel_request(params), max(params.limit or 0, -1), since, reverse)


class _ConnectData(msgspec.Struct):
    """What is read of the `data` of a connect, which belongs to the application otherwise."""

    session: str = ""


_CONNECT_DATA: Final[json_text.JsonDecoder[_ConnectData]] = json_text.JsonDecoder(_ConnectData)


def wanted_session(data: bytes) -> str:
    """The session that the data of a connect names, "" for none."""
    try:
        return _CONNECT_DATA.decode(data).session if data else ""
    except json_text.JsonTextInvalid:
        return ""


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


def publication_body(
    data: bytes, user: str, client: str, info: bytes, chan_info: bytes = b""
) -> bytes:
    """Encode a client's publication: its data and the infos of its publisher, b"" for none, as JSON text."""
    client_info: dict[str, Any] = {"user": user, "client": client}
    if info:
        client_info["conn_info"] = orjson.Fragment(info)
    if chan_info:
        client_info["chan_info"] = orjson.Fragment(chan_info)
    return b'{"data":%b,"info":%b}' % (data, orjson.dumps(client_info))


def server_publication_body(
    data: bytes, tags: dict[str, str] | None, *, wants_delta: bool = False
) -> bytes:
    """Encode a publication of the server API: its data, as JSON text, and tags, without a publisher.

    Args:
        wants_delta: send it as a delta to subscribers that take deltas; see `is_delta_wanted`.

    Raises:
        ClientError: 107 without data, or with data nested too deeply.
    """
    try:
        data = json_text.checked(data)
    except json_text.JsonTextInvalid:
        raise BAD_REQUEST.fresh() from None
    start = _WANTS_DELTA if wants_delta else b"{"
    if not tags:
        return b'%b"data":%b}' % (start, data)
    return b'%b"data":%b,"tags":%b}' % (start, data, orjson.dumps(tags))


#: What a publication begins with whose publisher asks for deltas: the space means nothing to anybody else,
#: so that workers of all versions can read it, and needs no room in the messages of others.
_WANTS_DELTA: Final = b"{ "


def is_delta_wanted(body: bytes) -> bool:
    """Whether the publisher of a publication asked for deltas."""
    return body.startswith(_WANTS_DELTA)


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


def push_document(prefix: bytes, publication: Publication) -> bytes:
    """Encode a publication push."""
    return b"%b%b}}" % (prefix, publication_json(publication))


def push_frame(prefix: bytes, publication: Publication) -> bytes:
    """Encode the frame of a publication push: once, for all subscribers."""
    return text_frame(push_document(prefix, publication))


def publication_push(channel: str, publication: orjson.Fragment) -> bytes:
    """Encode a push of one of `publications_json`."""
    return orjson.dumps({"push": {"channel": channel, "pub": publication}})


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


def binary_frame(payload: bytes) -> bytes:
    """Encode a binary frame."""
    return _frame(0x82, payload)


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
