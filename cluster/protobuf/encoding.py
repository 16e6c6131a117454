"""Encodes documents, replies and pushes in JSON, as messages `Reply`, each behind its length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import GenericAlias
from typing import Any, Final, TypedDict

import msgspec

from cluster import data_url, json_text
from cluster.protobuf.schema import CLASSES, MESSAGES, Field
from cluster.protocol import binary_frame

_SCALARS: Final = {"string": str, "bytes": msgspec.Raw, "bool": bool}


def _shape(message: str) -> Any:
    """What a message is decoded into from JSON: a dict of the members that it has."""
    members = {field.name: _type(field) for field in MESSAGES[message]}
    return TypedDict(f"_{message}", members, total=False)  # type: ignore[operator]


def _type(field: Field) -> Any:
    kind: Any = _shape(field.type) if field.is_message else _SCALARS.get(field.type, int)
    if field.is_list:
        return GenericAlias(list, (kind,))
    return GenericAlias(dict, (str, kind)) if field.is_map else kind


_REPLY: Final[json_text.JsonDecoder[dict[str, Any]]] = json_text.JsonDecoder(
    _shape("Reply"), replaces_surrogates=True
)

Encoder = Callable[[Any], Any]


def _encoder(message: str) -> Encoder:
    """Make the function that turns such a dict into the Protobuf message."""
    make = CLASSES[message]
    encoders = {
        field.name: encoder
        for field in MESSAGES[message]
        if (encoder := _member_encoder(field)) is not None
    }

    def encode(members: dict[str, Any]) -> Any:
        return make(
            **{
                name: encoders[name](value) if name in encoders else value
                for name, value in members.items()
            }
        )

    return encode


def _member_encoder(field: Field) -> Encoder | None:
    """The function for a member whose values differ; None if they are the same."""
    if field.type == "bytes":
        return lambda raw: data_url.bytes_of(bytes(raw))
    if not field.is_message:
        return None
    encode = _encoder(field.type)
    if field.is_list:
        return lambda values: [encode(one) for one in values]
    if field.is_map:
        return lambda values: {key: encode(one) for key, one in values.items()}
    return encode


_encode: Final = _encoder("Reply")


def _message(document: bytes) -> bytes:
    """Encode one document, behind its length."""
    encoded: bytes = _encode(_REPLY.decode(document)).SerializeToString()
    return _varint(len(encoded)) + encoded


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def frame(document: bytes) -> bytes:
    """Encode one document as a WebSocket frame."""
    return binary_frame(_message(document))


def frames(documents: Sequence[bytes]) -> bytes:
    """Encode several documents as one WebSocket frame."""
    return binary_frame(b"".join(map(_message, documents)))


PING_FRAME: Final = binary_frame(b"\0")
