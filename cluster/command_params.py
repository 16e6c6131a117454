"""The parameters of each method, as a client sends them.

`data` stays text; a member that is null counts as absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

#: The headers of a connect, or of a handshake, if there are none.
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class NoParams(msgspec.Struct, gc=False):
    pass


class ChannelParams(msgspec.Struct, gc=False):
    channel: str | None = None


class PositionParams(msgspec.Struct, gc=False):
    recover: bool | None = None
    offset: int | None = None
    epoch: str | None = None


class ConnectParams(msgspec.Struct, gc=False):
    token: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    subs: dict[str, PositionParams] | None = None
    name: str | None = None
    version: str | None = None
    headers: dict[str, str | None] | None = None


class SubscribeParams(PositionParams, gc=False):
    channel: str | None = None
    token: str | None = None
    positioned: bool | None = None
    recoverable: bool | None = None
    join_leave: bool | None = None
    flag: int | None = None
    delta: str | None = None
    tf: msgspec.Raw = msgspec.Raw()
    data: msgspec.Raw = msgspec.Raw()


class PublishParams(msgspec.Struct, gc=False):
    channel: str | None = None
    data: msgspec.Raw = msgspec.Raw()


class HistoryParams(msgspec.Struct, gc=False):
    channel: str | None = None
    limit: int | None = None
    since: PositionParams | None = None
    reverse: bool | None = None


class RpcParams(msgspec.Struct, gc=False):
    method: str | None = None
    data: msgspec.Raw = msgspec.Raw()


class SendParams(msgspec.Struct, gc=False):
    data: msgspec.Raw = msgspec.Raw()


class TokenParams(msgspec.Struct, gc=False):
    channel: str | None = None
    token: str | None = None


PARAMS: Final[dict[str, type[msgspec.Struct]]] = {
    "connect": ConnectParams,
    "ping": NoParams,
    "subscribe": SubscribeParams,
    "unsubscribe": ChannelParams,
    "publish": PublishParams,
    "presence": ChannelParams,
    "presence_stats": ChannelParams,
    "history": HistoryParams,
    "rpc": RpcParams,
    "send": SendParams,
    "refresh": TokenParams,
    "sub_refresh": TokenParams,
}
