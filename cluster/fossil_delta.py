"""Deltas in the format of Fossil: the difference between two payloads, which the SDKs apply.

Format ("Fossil Delta Format", fossil-scm.org): the size of the target and a newline,
then segments, all numbers in base 64. `<n>:<text>` is literal text, `<n>@<offset>,` copies from the base,
`<checksum>;` ends the delta.

What a delta costs is bounded: of a text that is too long there is none, and one that differs in too many
places is given up. Deltas travel in JSON strings, so each segment begins and ends between characters.
"""

from __future__ import annotations

import struct
from typing import Final

#: Payloads above this size, and bases, have no delta.
MAXIMUM_BYTES: Final = 65536
#: Positions of the target that are looked up in the base; after them a delta is given up.
MAXIMUM_LOOKUPS: Final = 8192

_BLOCK: Final = 16
#: A copy of so few bytes takes as much room as the bytes.
_LEAST: Final = 6
_DIGITS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"


def delta(base: bytes, target: bytes) -> bytes | None:
    """The delta that makes the target of the base, both UTF-8.

    Returns:
        None if there is none that is smaller than the target.
    """
    if not base or len(base) > MAXIMUM_BYTES or len(target) > MAXIMUM_BYTES:
        return None
    copies = _copies(base, target)
    if copies is None:
        return None
    parts = [_number(len(target)) + b"\n"]
    at = 0
    for start, source, size in copies:
        if start > at:
            parts.append(b"%b:%b" % (_number(start - at), target[at:start]))
        parts.append(b"%b@%b," % (_number(size), _number(source)))
        at = start + size
    if at < len(target):
        parts.append(b"%b:%b" % (_number(len(target) - at), target[at:]))
    parts.append(_number(checksum(target)) + b";")
    made = b"".join(parts)
    return made if len(made) < len(target) else None


def checksum(text: bytes) -> int:
    """The sum of the 32-bit words of a text, big-endian and filled with zeros."""
    words = -(-len(text) // 4)
    total: int = sum(struct.unpack(f">{words}I", text.ljust(4 * words, b"\0")))
    return total & 0xFFFFFFFF


def _number(value: int) -> bytes:
    digits = bytearray()
    while True:
        value, digit = divmod(value, 64)
        digits.append(_DIGITS[digit])
        if not value:
            return bytes(reversed(digits))


def _copies(base: bytes, target: bytes) -> list[tuple[int, int, int]] | None:
    """What the target has in common with the base: start in the target, start in the base, size."""
    prefix = _equal_after(base, 0, target, 0)
    most = min(len(base), len(target)) - prefix
    suffix = min(most, _equal_before(base, len(base), target, len(target), most))
    end = len(target) - suffix
    found = [(0, 0, prefix)]
    blocks = {base[at : at + _BLOCK]: at for at in range(0, len(base) - _BLOCK + 1, _BLOCK)}
    at, literal, lookups = prefix, prefix, 0
    while at + _BLOCK <= end:
        lookups += 1
        if lookups > MAXIMUM_LOOKUPS:
            return None
        source = blocks.get(target[at : at + _BLOCK])
        if source is None:
            at += 1
            continue
        before = _equal_before(base, source, target, at, at - literal)
        size = before + min(_equal_after(base, source, target, at), end - at)
        found.append((at - before, source - before, size))
        at = literal = at - before + size
    found.append((end, len(base) - suffix, suffix))
    return [
        copy for copy in (_between_characters(target, *one) for one in found) if copy[2] > _LEAST
    ]


def _between_characters(target: bytes, start: int, source: int, size: int) -> tuple[int, int, int]:
    """Shorten a copy until it begins and ends between two characters."""
    end = start + size
    while start < end and target[start] & 0xC0 == 0x80:
        start, source = start + 1, source + 1
    while end > start and end < len(target) and target[end] & 0xC0 == 0x80:
        end -= 1
    return start, source, end - start


def _equal_after(one: bytes, i: int, two: bytes, j: int) -> int:
    """How many bytes from two positions on are equal, found in steps that double and then halve."""
    most = min(len(one) - i, len(two) - j)
    size, step = 0, _BLOCK
    while size < most and one[i + size : i + size + step] == two[j + size : j + size + step]:
        size, step = size + step, step * 2
    size = min(size, most)
    while step > 1:
        step //= 2
        if size + step <= most and (
            one[i + size : i + size + step] == two[j + size : j + size + step]
        ):
            size += step
    return size


def _equal_before(one: bytes, i: int, two: bytes, j: int, most: int) -> int:
    """How many bytes before two positions are equal, `most` at most."""
    most = min(i, j, most)
    size, step = 0, _BLOCK
    while size + step <= most and (
        one[i - size - step : i - size] == two[j - size - step : j - size]
    ):
        size, step = size + step, step * 2
    while step > 1:
        step //= 2
        if size + step <= most and (
            one[i - size - step : i - size] == two[j - size - step : j - size]
        ):
            size += step
    return size
