"""Bytes of any kind as JSON text: JSON stays as it is, other bytes become a data URL (RFC 2397).

A client that speaks Protobuf sends and receives bytes. Everything between two clients (the store, the
JSON codec, an application's handlers) has JSON text, so that bytes which are no JSON are the string
`"data:;base64,…"` there. What was sent with Protobuf arrives with Protobuf byte for byte.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from cluster import json_text

PREFIX: Final = b'"data:;base64,'


def text_of(data: bytes) -> bytes:
    """Return the JSON text for bytes; b"" stays b""."""
    if not data:
        return b""
    try:
        # A string that looks like one of ours must be told from one that was sent.
        if not data.startswith(PREFIX) and json_text.checked(data) == data:
            return data
    except json_text.JsonTextInvalid:
        pass
    return b'%b%b"' % (PREFIX, binascii.b2a_base64(data, newline=False))


def of_base64(encoded: str) -> bytes:
    """Return the JSON text for bytes that a backend sends in base64, without newlines if they are JSON.

    Raises:
        ValueError: it is no base64.
    """
    data = base64.b64decode(encoded, validate=True)
    if data.startswith(PREFIX):
        return text_of(data)
    try:
        return json_text.checked(data) if data else b""
    except json_text.JsonTextInvalid:
        return text_of(data)


def bytes_of(text: bytes) -> bytes:
    """Return the bytes for which JSON text stands: those of a data URL, or the text itself."""
    if text.startswith(PREFIX):
        try:
            return binascii.a2b_base64(text[len(PREFIX) : -1], strict_mode=True)
        except binascii.Error:
            pass
    return text
