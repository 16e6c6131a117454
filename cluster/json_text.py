"""JSON text that is passed on as it was received.

Rules
- Text is checked to be JSON (RFC 8259) in valid UTF-8, and kept: no value is made of it and nothing is
  written anew, so numbers, repeated keys, escapes and spaces stay as they are.
- Only newlines are removed: they separate the documents of a WebSocket message, and stand in JSON between
  tokens only. Centrifugo does the same.
- `msgspec.Raw` is a member of a document as text, without the whitespace around it.
- An escaped lone surrogate is allowed in text (RFC 8259 §8.2); it is what `JSON.stringify` makes of an
  emoji that was cut. Where a string is needed, U+FFFD takes its place.
"""

from __future__ import annotations

import re
import secrets
from itertools import accumulate
from typing import Any, Final, Generic, TypeVar

import msgspec
import orjson

#: Levels of arrays and objects within each other. Python's own parser, which a Python client uses, ends at
#: about 1,000, and JSON without a bound could stop such a client.
MAXIMUM_NESTING: Final = 512

#: Documents that are nested more deeply are not parsed. msgspec ends where Python's stack does, which is at
#: another depth in each version of Python, and never before this.
PARSED_NESTING: Final = 800

#: The escape of a lone surrogate, in text without escaped backslashes. It is only its `\u` that matches.
_LONE_SURROGATE: Final = re.compile(
    rb"\\u(?=[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2}))"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u(?=[dD][c-fC-F][0-9a-fA-F]{2})"
)

_STRING: Final = re.compile(rb'"[^"]*"')
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b'[]{}"'))
_LEVELS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}

T = TypeVar("T")


class JsonTextInvalid(ValueError):
    """The text is not JSON, not UTF-8, not of the wanted shape, or nested too deeply."""


class JsonDecoder(Generic[T]):
    """Decodes documents of one shape, in which members of the type `msgspec.Raw` stay text.

    Args:
        shape: a `msgspec.Struct` or a `TypedDict`; members that it does not name are ignored.
        replaces_surrogates: whether a lone surrogate in a string becomes U+FFFD instead of an error.

    Attributes:
        decode_plain: decodes text that is known to be UTF-8 and not too deep, and raises what msgspec
            raises, also for text that `decode` accepts.
    """

    def __init__(self, shape: Any, *, replaces_surrogates: bool = False) -> None:
        self.decode_plain = msgspec.json.Decoder(shape).decode
        self._replaces_surrogates = replaces_surrogates

    def decode(self, text: bytes) -> T:
        """Decode one document.

        Raises:
            JsonTextInvalid: see there.
        """
        try:
            if not text.isascii():
                # msgspec checks what becomes a string, and nothing else.
                text.decode()
            if is_too_deep(text, PARSED_NESTING):
                raise JsonTextInvalid(f"nested more than {PARSED_NESTING} levels deep")
            document: T = self.decode_plain(text)
            return document
        except (msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
            raise JsonTextInvalid(str(error)) from None
        except msgspec.DecodeError as error:
            return self._decode_surrogates(text, error)

    def _decode_surrogates(self, text: bytes, error: msgspec.DecodeError) -> T:
        r"""Decode text that msgspec refuses if it has lone surrogates, which it does not accept.

        A marker that does not occur in the text takes the place of their `\u` until it is decoded.
        """
        marker = b"x" + secrets.token_hex(8).encode()
        while marker in text:
            marker = b"x" + secrets.token_hex(8).encode()
        if b"\0" in text:
            raise JsonTextInvalid(str(error)) from None
        # Without escaped backslashes, each backslash that is left begins an escape.
        bare = text.replace(rb"\\", b"\0\0")
        marked, found = _LONE_SURROGATE.subn(marker, bare)
        if not found:
            raise JsonTextInvalid(str(error)) from None
        try:
            document = self.decode_plain(marked.replace(b"\0\0", rb"\\"))
            restored: T = self._restored(document, marker)
        except (msgspec.DecodeError, RecursionError) as again:
            raise JsonTextInvalid(str(again)) from None
        return restored

    def _restored(self, value: Any, marker: bytes) -> Any:
        if type(value) is msgspec.Raw:
            return msgspec.Raw(bytes(value).replace(marker, rb"\u"))
        if type(value) is str:
            name = marker.decode()
            if name in value and not self._replaces_surrogates:
                raise JsonTextInvalid("a lone surrogate in a string")
            return re.sub(f"{name}....", "\ufffd", value)
        if isinstance(value, dict):
            return {
                self._restored(key, marker): self._restored(one, marker)
                for key, one in value.items()
            }
        if isinstance(value, list):
            return [self._restored(one, marker) for one in value]
        if isinstance(value, msgspec.Struct):
            for field in value.__struct_fields__:
                setattr(value, field, self._restored(getattr(value, field), marker))
        return value


_ANY: Final[JsonDecoder[msgspec.Raw]] = JsonDecoder(msgspec.Raw)


def checked(text: bytes) -> bytes:
    """Return a JSON document without newlines and without the whitespace around it.

    Raises:
        JsonTextInvalid: see there.
    """
    value = bytes(_ANY.decode(text))
    if is_too_deep(value):
        raise JsonTextInvalid(f"nested more than {MAXIMUM_NESTING} levels deep")
    return value.replace(b"\n", b"") if b"\n" in value else value


def of(value: Any) -> bytes:
    """Return the JSON text of what an application gives: `bytes` are text, another value is encoded.

    Raises:
        JsonTextInvalid: see there.
        JSONEncodeError: the value cannot be encoded.
    """
    return checked(value) if type(value) is bytes else orjson.dumps(value)


def is_too_deep(text: bytes, levels: int = MAXIMUM_NESTING) -> bool:
    """Whether text is nested more than so many levels deep; of malformed text it may say anything.

    Text that is short or has few brackets cannot be, so most of it is not looked at.
    """
    if len(text) <= 2 * levels or text.count(b"[") + text.count(b"{") <= levels:
        return False
    if b"\\" in text:
        text = text.replace(rb"\\", b"").replace(rb"\"", b"")
    # Without two quotes side by side, each bracket is inside or outside of a string as it was.
    brackets = text.translate(None, _NO_BRACKETS).replace(b'""', b"")
    if b'"' in brackets:
        brackets = _STRING.sub(b"", brackets)
    # Most text with many brackets is flat, and nothing of it is left soon. Each round takes two levels at most.
    rest = brackets
    for taken in range(0, 8, 2):
        if len(rest) // 2 + taken <= levels:
            return False
        rest = rest.replace(b"[]", b"").replace(b"{}", b"")
    return max(accumulate(map(_LEVELS.__getitem__, brackets))) > levels
