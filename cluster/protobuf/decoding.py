"""Decodes what a client sends: messages `Command`, each behind its length.

The commands have the same parameters as those of JSON; `data` is the JSON text that stands for the
client's bytes (`cluster.data_url`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec
from google.protobuf.message import DecodeError

from cluster import data_url
from cluster.command_params import (
    ChannelParams,
    ConnectParams,
    HistoryParams,
    NoParams,
    PositionParams,
    PublishParams,
    RpcParams,
    SendParams,
    SubscribeParams,
    TokenParams,
)
from cluster.decoding_in_parts import in_parts
from cluster.errors import BAD_REQUEST_CLOSE
from cluster.protobuf.schema import CLASSES, METHOD
from cluster.protocol import PONG, Command

#: Commands of one WebSocket message, pongs included: as many as JSON has room for in 64 KiB.
MOST_COMMANDS: Final = 4096

_COMMAND: Final = CLASSES["Command"]


def decode(payload: bytes) -> Iterable[Command]:
    """Decode one WebSocket message.

    Returns:
        See `cluster.decoding_in_parts.in_parts`.

    Raises:
        Disconnect: 3501 for anything that is not a list of commands. The iterator raises it where it
            finds the fault.
    """
    if not payload:
        raise BAD_REQUEST_CLOSE.fresh()
    return in_parts(map(_command, _parts(payload)))


def _parts(payload: bytes) -> Iterator[bytes]:
    """The messages of a frame."""
    at = count = 0
    size = len(payload)
    while at < size:
        length = shift = 0
        while True:
            if at >= size or shift > 28:
                raise BAD_REQUEST_CLOSE.fresh()
            byte = payload[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        end = at + length
        count += 1
        if end > size or count > MOST_COMMANDS:
            raise BAD_REQUEST_CLOSE.fresh()
        yield payload[at:end]
        at = end


def _command(part: bytes) -> Command:
    if not part:
        return PONG
    try:
        command = _COMMAND.FromString(part)
    except DecodeError:
        raise BAD_REQUEST_CLOSE.fresh() from None
    number, method = command.id, command.WhichOneof(METHOD)
    if method is None or (number == 0 and method != "send"):
        # As in JSON, a command without an id is a pong.
        if number:
            raise BAD_REQUEST_CLOSE.fresh()
        return PONG
    return Command(number, method, _PARAMS[method](getattr(command, method)))


# --- parameters --------------------------------------------------------------------------


def _data(value: bytes) -> msgspec.Raw:
    return msgspec.Raw(data_url.text_of(value)) if value else _NO_DATA


_NO_DATA: Final = msgspec.Raw()


def _connect(sent: Any) -> ConnectParams:
    subs = {
        channel: PositionParams(one.recover, one.offset, one.epoch)
        for channel, one in sent.subs.items()
    }
    headers = dict(sent.headers)
    return ConnectParams(sent.token, _data(sent.data), subs, sent.name, sent.version, headers)


def _subscribe(sent: Any) -> SubscribeParams:
    return SubscribeParams(
        recover=sent.recover,
        offset=sent.offset,
        epoch=sent.epoch,
        channel=sent.channel,
        token=sent.token,
        positioned=sent.positioned,
        recoverable=sent.recoverable,
        join_leave=sent.join_leave,
        flag=sent.flag,
        delta=sent.delta,
        tf=_filter(sent.tf) if sent.HasField("tf") else _NO_DATA,
        data=_data(sent.data),
    )


def _filter(node: Any) -> msgspec.Raw:
    """The JSON text of a tags filter, which is checked later; Protobuf bounds its depth."""
    return msgspec.Raw(msgspec.json.encode(_node(node)))


def _node(node: Any) -> dict[str, Any]:
    return {
        "op": node.op,
        "key": node.key,
        "cmp": node.cmp,
        "val": node.val,
        "vals": list(node.vals),
        "nodes": [_node(one) for one in node.nodes],
    }


def _history(sent: Any) -> HistoryParams:
    since = None
    if sent.HasField("since"):
        since = PositionParams(None, sent.since.offset, sent.since.epoch)
    return HistoryParams(sent.channel, sent.limit, since, sent.reverse)


def _channel(sent: Any) -> ChannelParams:
    return ChannelParams(sent.channel)


_PARAMS: Final[Mapping[str, Callable[[Any], msgspec.Struct]]] = {
    "connect": _connect,
    "ping": lambda sent: NoParams(),
    "subscribe": _subscribe,
    "unsubscribe": _channel,
    "publish": lambda sent: PublishParams(sent.channel, _data(sent.data)),
    "presence": _channel,
    "presence_stats": _channel,
    "history": _history,
    "rpc": lambda sent: RpcParams(sent.method, _data(sent.data)),
    "send": lambda sent: SendParams(_data(sent.data)),
    "refresh": lambda sent: TokenParams(None, sent.token),
    "sub_refresh": lambda sent: TokenParams(sent.channel, sent.token),
}
