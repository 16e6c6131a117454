r"""Text of others, made safe for a terminal.

Labels, annotations, log lines and file contents may hold terminal escapes, line breaks and characters
that reorder what is shown (Unicode TR 36, section 2.4). Each is shown as its escape, as in `\x1b`.
"""

from __future__ import annotations

import re
import sys
from typing import Final, TextIO

#: C0 and C1 controls, separators of lines, format characters that reorder or hide text, tags,
#: and halves of surrogate pairs, which no terminal encoding has.
CONTROL: Final = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f"
)
_UNSAFE: Final = re.compile(f"[{CONTROL}]")
_UNSAFE_IN_LINES: Final = re.compile(f"(?![\n\t])[{CONTROL}]")
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escaped(text: str) -> str:
    """Return one line of text without characters that act on a terminal."""
    return _UNSAFE.sub(_escape, text)


def escaped_lines(text: str) -> str:
    """Return text that may have several lines and tabs, without other characters that act."""
    return _UNSAFE_IN_LINES.sub(_escape, text)


def print_line(text: str, out: TextIO | None = None) -> None:
    """Write one line to standard output, or another stream."""
    (out or sys.stdout).write(escaped(text) + "\n")


def print_lines(text: str, out: TextIO | None = None) -> None:
    """Write a text that this program has divided into lines."""
    (out or sys.stdout).write(escaped_lines(text) + "\n")


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if character in _SHORT:
        return _SHORT[character]
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
