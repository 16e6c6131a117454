"""Commands as bytes, written by hand as the Protobuf libraries of Dart and Swift write them.

Both write fields by their numbers. They differ in a field that was set to its default value: Dart's library writes
it, Swift's does not. A field that is a message is written by both, however empty.
"""

from __future__ import annotations

from typing import Any

#: The fields of a message that an SDK sets, by their names; a list is a message.
Fields = list[tuple[str, Any]]

#: The numbers of `client.proto` of centrifugal/protocol.
_COMMAND = {
    "id": 1,
    "connect": 4,
    "subscribe": 5,
    "unsubscribe": 6,
    "publish": 7,
    "presence": 8,
    "presence_stats": 9,
    "history": 10,
    "send": 12,
    "rpc": 13,
    "refresh": 14,
    "sub_refresh": 15,
}
_SUBSCRIBE = {
    "channel": 1,
    "token": 2,
    "recover": 3,
    "epoch": 6,
    "offset": 7,
    "data": 8,
    "positioned": 9,
    "recoverable": 10,
    "join_leave": 11,
    "delta": 12,
    "tf": 13,
    "flag": 14,
}
_CHANNEL = {"channel": 1}
_NUMBERS: dict[str, dict[str, int]] = {
    "command": _COMMAND,
    "connect": {"token": 1, "data": 2, "subs": 3, "name": 4, "version": 5},
    "subs": {"key": 1, "value": 2},
    "value": _SUBSCRIBE,
    "subscribe": _SUBSCRIBE,
    "tf": {"op": 1, "key": 2, "cmp": 3, "val": 4, "vals": 5, "nodes": 6},
    "unsubscribe": _CHANNEL,
    "publish": {"channel": 1, "data": 2},
    "presence": _CHANNEL,
    "presence_stats": _CHANNEL,
    "history": {"channel": 1, "limit": 7, "since": 8, "reverse": 9},
    "since": {"offset": 1, "epoch": 2},
    "send": {"data": 1},
    "rpc": {"data": 1, "method": 2},
    "refresh": {"token": 1},
    "sub_refresh": {"channel": 1, "token": 2},
}
_NUMBERS["nodes"] = _NUMBERS["tf"]


def sized_command(number: int, method: str, fields: Fields, writes_defaults: bool) -> bytes:
    """A command behind its length; without a method it is a pong.

    Args:
        number: 0 for none.
    """
    command: Fields = [("id", number)] if number else []
    if method:
        command.append((method, fields))
    encoded = _encoded("command", command, writes_defaults)
    return varint(len(encoded)) + encoded


def _encoded(message: str, fields: Fields, writes_defaults: bool) -> bytes:
    numbers, encoded = _NUMBERS[message], b""
    for name, value in sorted(fields, key=lambda one: numbers[one[0]]):
        if not value and not writes_defaults and not isinstance(value, list):
            continue
        if isinstance(value, int):
            # A negative number has all its 64 bits.
            encoded += varint(numbers[name] << 3) + varint(value & (1 << 64) - 1)
            continue
        if isinstance(value, list):
            value = _encoded(name, value, writes_defaults)
        elif isinstance(value, str):
            value = value.encode()
        encoded += varint(numbers[name] << 3 | 2) + varint(len(value)) + value
    return encoded


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    encoded = b""
    while number > 0x7F:
        encoded += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return encoded + bytes((number,))
