"""Reads what the server sends to a Protobuf client as strictly as the strictest SDK does.

The SDKs for Dart, Swift and Java read a WebSocket message as replies until its end: a length, then so many bytes.
They differ in what they forgive: Swift's cuts the message by the lengths alone, Dart's and Java's read them as
numbers of 32 bits, and all of them keep what they do not know without a word. So this reader forgives nothing,
with the classes that the Python SDK publishes, which are generated from the same `client.proto`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from centrifuge.protocol import client_pb2
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

#: The longest length that is a positive number of 32 bits with a sign, as Dart and Java have it.
_LONGEST = 2**31 - 1


class BadFrame(Exception):
    """An SDK would not understand this message, or not all of it."""


def replies_of(payload: bytes | str) -> list[Any]:
    """Read all replies of a WebSocket message.

    Raises:
        BadFrame: it is text, or empty, or a reply is not one that the protocol has.
    """
    if isinstance(payload, str):
        raise BadFrame("text")
    if not payload:
        raise BadFrame("no reply")
    replies, at = [], 0
    while at < len(payload):
        size, at = _length(payload, at)
        encoded = payload[at : at + size]
        if len(encoded) < size:
            raise BadFrame(f"{len(encoded)} bytes where {size} are announced")
        at += size
        replies.append(_reply(encoded))
    return replies


def fields_of(message: Message) -> Iterator[str]:
    """Every field that is set in a message or below, as `Push.channel`."""
    for inner in _messages(message):
        yield from (f"{inner.DESCRIPTOR.name}.{field.name}" for field, _ in inner.ListFields())


def _length(payload: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where it ends."""
    number = shift = 0
    for end, byte in enumerate(payload[at : at + 5], at + 1):
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte & 0x80:
            continue
        if number > _LONGEST or (shift > 7 and byte == 0):
            raise BadFrame(f"the length is written as {payload[at:end].hex()}")
        return number, end
    raise BadFrame("the length has no end")


def _reply(encoded: bytes) -> Any:
    try:
        reply = client_pb2.Reply.FromString(encoded)
    except DecodeError as error:
        raise BadFrame(f"no reply: {error}") from None
    for message in _messages(reply):
        unknown = UnknownFieldSet(message)
        if len(unknown):
            raise BadFrame(f"{message.DESCRIPTOR.name} has no field {unknown[0].field_number}")
    # Fields with their default value, or twice, would be lost when it is encoded again.
    if len(reply.SerializeToString()) != len(encoded):
        raise BadFrame("a field is written that need not be, or twice")
    _check_kind(reply)
    return reply


def _check_kind(reply: Any) -> None:
    """A reply is a ping, or has an id and what it answers, or is a push of one kind."""
    members = {field.name for field, _ in reply.ListFields()}
    if not members:
        return
    if reply.HasField("push"):
        members = {field.name for field, _ in reply.push.ListFields()} - {"channel"}
        if reply.id or len(reply.ListFields()) != 1 or len(members) != 1:
            raise BadFrame(f"a push with {sorted(members)}")
    elif not reply.id or len(members) != 2:
        raise BadFrame(f"a reply with {sorted(members)}")


def _messages(message: Message) -> Iterator[Message]:
    """A message and all below it."""
    yield message
    for _, value in message.ListFields():
        if isinstance(value, Message):
            yield from _messages(value)
        elif isinstance(value, Mapping):
            yield from _below(value.values())
        elif not isinstance(value, str | bytes | int):
            yield from _below(value)


def _below(values: Any) -> Iterator[Message]:
    for value in values:
        if isinstance(value, Message):
            yield from _messages(value)
