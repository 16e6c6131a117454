"""Helpers for the tests of a connection: commands of a client, and what it is sent."""

from __future__ import annotations

from typing import Any

import orjson

from cluster.connection import Close, Connection, Send
from cluster.metrics.counters import Counters


def line(number: int, command: str, /, **params: Any) -> bytes:
    return orjson.dumps({"id": number, command: params})


def lines(*commands: bytes) -> bytes:
    return b"\n".join(commands)


def said(actions: list[Any]) -> list[dict[str, Any]]:
    """The documents that are sent."""
    return [orjson.loads(action.payload) for action in actions if isinstance(action, Send)]


def codes(actions: list[Any]) -> list[int]:
    return [action.why.code for action in actions if isinstance(action, Close)]


def error_code(actions: list[Any]) -> int:
    [document] = said(actions)
    code: int = document["error"]["code"]
    return code


def make(channel_limit: int = 128) -> Connection:
    return Connection("client-id", channel_limit=channel_limit, counters=Counters())


def enter(connection: Connection, **given: Any) -> list[Any]:
    options: dict[str, Any] = {"user": "u", "info": None, "expires_at": 0, "server_side": {}}
    return connection.connected(1, {"client": "client-id"}, **(options | given))


def subscribe(connection: Connection, channel: str, number: int = 2, **given: Any) -> None:
    connection.receive(line(number, "subscribe", channel=channel))
    connection.subscribed(number, channel, {}, **({"is_positioned": True} | given))
    connection.resume()
