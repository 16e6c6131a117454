"""The fields of options: how each kind is written in the sections."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Final

MAXIMUM_PORT: Final = 65535


def option(kind: str, default: Any, text: str, *, is_secret: bool = False, **limits: Any) -> Any:
    metadata = {"kind": kind, "text": text, **limits}
    return field(default=default, repr=not is_secret, metadata=metadata)


def seconds(default: float, *, minimum: float = 0.0, text: str) -> Any:
    return option("seconds", default, text, minimum=minimum)


def integer(default: int, *, minimum: int = 0, maximum: int | None = None, text: str) -> Any:
    return option("integer", default, text, minimum=minimum, maximum=maximum)


def byte_size(default: int, *, minimum: int = 1, text: str) -> Any:
    return option("bytes", default, text, minimum=minimum, maximum=None)


def port_number(default: int, *, text: str) -> Any:
    return option("port", default, text, minimum=0, maximum=MAXIMUM_PORT)


def boolean(default: bool, *, text: str) -> Any:
    return option("boolean", default, text)


def string(default: str, *, text: str) -> Any:
    return option("string", default, text, may_be_empty=False)


def optional(default: str, *, text: str) -> Any:
    return option("string", default, text, may_be_empty=True)


def url(default: str, *, text: str) -> Any:
    """The URL of another service; it may hold a password, and is never shown with it."""
    return option("url", default, text, is_secret=True, may_be_empty=True)


def choice(default: str, choices: tuple[str, ...], *, text: str) -> Any:
    return option("choice", default, text, choices=choices)


def secret(*, text: str) -> Any:
    return option("secret", "", text, is_secret=True, may_be_empty=True)


def strings(*, is_secret: bool = False, text: str) -> Any:
    return option("strings", (), text, is_secret=is_secret)


def headers(*, text: str) -> Any:
    """Headers of HTTP, by name; their values may be secrets. The value is pairs of name and value."""
    return option("headers", (), text, is_secret=True)


def tables(of: type) -> Any:
    """A list of tables of the same options; each has a name of its own."""
    return field(default=(), metadata={"kind": "tables", "of": of})
