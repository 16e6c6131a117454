"""A message of many commands is decoded part by part, so that no turn of the event loop decodes all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Final, TypeVar

T = TypeVar("T")

#: Commands of one message that are decoded together; the rest is decoded when these have been handled.
DECODED_AT_ONCE: Final = 32


def in_parts(commands: Iterator[T]) -> Iterable[T]:
    """A list of all commands if they are few; else an iterator, which decodes as it goes on."""
    first = list(islice(commands, DECODED_AT_ONCE))
    return first if len(first) < DECODED_AT_ONCE else chain(first, commands)
