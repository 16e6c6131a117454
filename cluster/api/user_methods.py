"""The methods of the server API that concern a user's connections: told to all workers.

They answer when the store has the command; the workers carry it out a moment later. A worker whose link
to the store is broken carries it out when the link is back.
"""

from __future__ import annotations

import json
import time
from typing import Any, Final

from cluster.api.request_params import Params, json_member, position_member
from cluster.auth import channel_override
from cluster.errors import BAD_REQUEST, FORCE_DISCONNECT
from cluster.node.control import Control
from cluster.node.permissions import ChannelPermissions
from cluster.node.user_commands import (
    DisconnectUser,
    RefreshUser,
    SubscribeUser,
    UnsubscribeUser,
)

#: Connections that a disconnect may spare.
MOST_SPARED: Final = 1_000
#: A close frame holds so many bytes of a reason (RFC 6455 §5.5).
_REASON_BYTES: Final = 123


class UserMethods:
    """They get parameters whose types are checked."""

    def __init__(self, control: Control, permissions: ChannelPermissions) -> None:
        self._control = control
        self._permissions = permissions

    async def disconnect(self, params: Params) -> dict[str, Any]:
        spared = params.get("whitelist", [])
        if len(spared) > MOST_SPARED:
            raise BAD_REQUEST.fresh()
        code, reason = _close(params.get("disconnect", {}))
        command = DisconnectUser(**_selected(params), whitelist=spared, code=code, reason=reason)
        await self._control.tell("disconnect", command)
        return {}

    async def unsubscribe(self, params: Params) -> dict[str, Any]:
        channel = self._channel(params)
        await self._control.tell(
            "unsubscribe", UnsubscribeUser(**_selected(params), channel=channel)
        )
        return {}

    async def subscribe(self, params: Params) -> dict[str, Any]:
        channel = self._channel(params)
        since = position_member(params, "recover_since")
        command = SubscribeUser(
            **_selected(params),
            channel=channel,
            data=json_member(params, "data", "b64data").decode(),
            info=json_member(params, "info", "b64info").decode(),
            expire_at=_future(params.get("expire_at", 0)),
            override=_override(params.get("override", {})),
            recover=since is not None,
            offset=since.offset if since is not None else 0,
            epoch=since.epoch if since is not None else "",
        )
        await self._control.tell("subscribe", command)
        return {}

    async def refresh(self, params: Params) -> dict[str, Any]:
        command = RefreshUser(
            **_selected(params),
            expired=params.get("expired", False),
            expire_at=params.get("expire_at", 0),
            info=json_member(params, "info").decode(),
        )
        await self._control.tell("refresh", command)
        return {}

    def _channel(self, params: Params) -> str:
        channel: str = params["channel"]
        self._permissions.options(channel)
        return channel


def _selected(params: Params) -> dict[str, Any]:
    return {name: params.get(name, "") for name in ("user", "client", "session")}


def _future(expire_at: int) -> int:
    if 0 < expire_at <= time.time():
        raise BAD_REQUEST.fresh()
    return expire_at


def _override(given: dict[str, Any]) -> dict[str, bool]:
    try:
        override = channel_override(given)
    except ValueError:
        raise BAD_REQUEST.fresh() from None
    if override is None:
        return {}
    return {name: value for name, value in override._asdict().items() if value is not None}


def _close(given: dict[str, Any]) -> tuple[int, str]:
    code = given.get("code") or FORCE_DISCONNECT.code
    reason = given.get("reason") or FORCE_DISCONNECT.reason
    if type(code) is not int or not 3000 <= code <= 4999 or type(reason) is not str:
        raise BAD_REQUEST.fresh()
    if len(reason.encode("utf-8", "replace")) > _REASON_BYTES or _is_json(reason):
        raise BAD_REQUEST.fresh()
    return code, reason


def _is_json(reason: str) -> bool:
    """Whether centrifuge-js would read a reason as advice in JSON instead of text."""
    try:
        json.loads(reason)
    except (ValueError, RecursionError):
        return False
    return True
