"""The same client, speaking Protobuf, with the classes that the Python SDK publishes.

Data is JSON in these tests, so that a ledger can hold publications of both codecs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import orjson
from centrifuge.protocol import client_pb2
from google.protobuf.message import Message

from tests.harness.client import Client, Json
from tests.harness.wire import BINARY, frame


class ProtobufClient(Client):
    """One client; see `Client`."""

    def __init__(self, port: int, **options: Any) -> None:
        super().__init__(port, path="/connection/websocket?format=protobuf", **options)

    def _send(self, commands: list[Json]) -> None:
        if self._wire is not None:
            payload = b"".join(_sized(_command(command)) for command in commands)
            self._wire.send(frame(BINARY, payload))

    def _message(self, opcode: int, payload: bytes) -> None:
        assert opcode == BINARY, "Protobuf travels in binary frames"
        self._last_frame = time.monotonic()
        at = 0
        while at < len(payload):
            size, at = _varint(payload, at)
            reply = client_pb2.Reply.FromString(payload[at : at + size])
            at += size
            if size:
                self._document(_plain(reply))
            else:
                self._pong()

    def _pong(self) -> None:
        if self.result.get("pong") and self._wire is not None:
            self._wire.send(frame(BINARY, b"\0"))


def _command(command: Json) -> Any:
    return client_pb2.Command(
        **{
            name: _params(value) if isinstance(value, dict) else value
            for name, value in command.items()
        }
    )


def _params(params: Json) -> Json:
    if "data" not in params:
        return params
    return {**params, "data": orjson.dumps(params["data"])}


def _sized(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    size, head = len(encoded), b""
    while size > 0x7F:
        head += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return head + bytes((size,)) + encoded


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at


def _plain(value: Any) -> Any:
    """What JSON would have: members that are set, with data as values."""
    if isinstance(value, Message):
        return {field.name: _plain(member) for field, member in value.ListFields()}
    if isinstance(value, bytes):
        return orjson.loads(value)
    if isinstance(value, str | int | bool | float):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(member) for key, member in value.items()}
    return [_plain(member) for member in value]
