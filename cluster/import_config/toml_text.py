"""Writes a tree of options as TOML (https://toml.io/en/v1.0.0).

Guarantee: `tomllib.loads(toml(tree)) == tree` for a tree of tables, lists, strings, booleans and finite
numbers whose lists of tables hold nothing else; and nothing in it acts on a terminal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cluster.terminal_text import CONTROL

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
# TOML has no escape for half of a surrogate pair.
_ACTS_ON_A_TERMINAL: Final = re.compile(f"(?![\ud800-\udfff])[{CONTROL}]")


def toml(tree: Mapping[str, Any]) -> str:
    """The document, options before tables."""
    return "\n".join(_table(tree, "")).strip() + "\n"


def _table(table: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, value in table.items():
        if not _is_table(value) and not _is_tables(value):
            yield f"{_key(name)} = {_value(value)}"
    for name, value in table.items():
        inner = f"{path}.{_key(name)}" if path else _key(name)
        if _is_table(value):
            lines = list(_table(value, inner))
            # A table whose first line begins another table needs no line of its own.
            if not lines or lines[0]:
                yield from ("", f"[{inner}]")
            yield from lines
        elif _is_tables(value):
            for item in value:
                yield from ("", f"[[{inner}]]")
                yield from _table(item, inner)


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _string(name)


def _string(text: str) -> str:
    # JSON escapes what TOML wants escaped, but for DEL; the rest is for the terminal.
    return _ACTS_ON_A_TERMINAL.sub(_escape, json.dumps(text, ensure_ascii=False))


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _string(value)
        case int() | float():
            return repr(value)
        case list() | tuple():
            return f"[{', '.join(_value(one) for one in value)}]"
        case dict():
            pairs = ", ".join(f"{_key(name)} = {_value(one)}" for name, one in value.items())
            return f"{{{pairs}}}"
    raise TypeError(f"{type(value).__name__} is no value of TOML here")
