"""ClientInfo as JSON text, and the pushes of joins and leaves that carry it."""

from __future__ import annotations

from typing import Any

import orjson

from cluster.presence import JOIN


def client_info(user: str, client: str, conn_info: bytes, chan_info: bytes) -> bytes:
    """Encode a ClientInfo; `conn_info` and `chan_info` are JSON text, b"" for none."""
    info: dict[str, Any] = {"user": user, "client": client}
    if conn_info:
        info["conn_info"] = orjson.Fragment(conn_info)
    if chan_info:
        info["chan_info"] = orjson.Fragment(chan_info)
    return orjson.dumps(info)


def member_push(channel: bytes, event: bytes) -> bytes:
    """Encode the push of a join or leave.

    Args:
        channel: its name as JSON text.
        event: JOIN or LEAVE, and the ClientInfo as JSON text.
    """
    kind = b"join" if event[:1] == JOIN else b"leave"
    return b'{"push":{"channel":%b,"%b":{"info":%b}}}' % (channel, kind, event[1:])
