"""Reading a tree of plain values into a `Config`, with a list of every mistake in it.

- A tree is what TOML or JSON give: dicts, lists, strings, numbers, booleans.
- Values from the environment are strings, so each kind of option accepts its value as a string too.
- A mistake never ends the reading: it is noted, the option keeps its default, the next one is read.

Why this is no library: docs/adr/0008-configuration-reader.md.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, Final, cast, get_type_hints

from cluster import durations
from cluster.config.channel_options import ChannelOptions, Namespace
from cluster.config.model import Config
from cluster.errors import Problem
from cluster.url_credentials import without_credentials

STARS: Final = "***"
_NAMESPACE_NAME: Final = re.compile(r"[-a-zA-Z0-9_]{2,}")
_SECRET_NAME: Final = re.compile("key|secret|passw|token|url", re.IGNORECASE)
_BOOLEANS: Final = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}
_INTEGERS: Final = {"bytes": "a whole number of bytes", "port": "a port number"}

_Limits = Mapping[str, Any]


class _Wrong(Exception):
    """The value is not allowed; the argument says what is."""


def shown(value: object, *, is_secret: bool = False) -> str:
    """A value as a message shows it: quoted, at most 80 characters, secrets as stars."""
    if is_secret:
        return STARS
    if isinstance(value, str) and "://" in value:
        value = without_credentials(value)
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def problem(key: str, value: object, allowed: str, *, is_secret: bool = False) -> Problem:
    """A mistake whose value is written as a message shows it."""
    return Problem(key, shown(value, is_secret=is_secret), allowed)


# --- one option --------------------------------------------------------------------------


def parse_seconds(value: object) -> float:
    """Parse a duration: a number of seconds, or a string such as "25s", "1h30m", "500ms".

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        seconds = durations.seconds_of(str(value).strip())
    if not math.isfinite(seconds):
        raise ValueError(value)
    return seconds


def _seconds(value: object, limits: _Limits) -> float:
    minimum = limits["minimum"]
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            seconds = parse_seconds(value)
        except (ValueError, OverflowError):
            seconds = -math.inf
        if seconds >= minimum:
            return seconds
    raise _Wrong(
        f'give seconds as a number, or a string such as "25s" or "500ms", at least {minimum:g}'
    )


def _integer(value: object, limits: _Limits) -> int:
    minimum, maximum = limits["minimum"], limits["maximum"]
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value.strip()):
        value = int(value)
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if is_integer and minimum <= value and (maximum is None or value <= maximum):
        return cast(int, value)
    noun = _INTEGERS.get(limits["kind"], "a whole number")
    bounds = f"from {minimum} to {maximum}" if maximum is not None else f"of at least {minimum}"
    raise _Wrong(f"give {noun} {bounds}")


def _boolean(value: object, limits: _Limits) -> bool:
    if isinstance(value, bool):
        return value
    text = value.strip().lower() if isinstance(value, str) else ""
    if text not in _BOOLEANS:
        raise _Wrong("give true or false")
    return _BOOLEANS[text]


def _choice(value: object, limits: _Limits) -> str:
    choices: tuple[str, ...] = limits["choices"]
    if value not in choices:
        raise _Wrong("give one of " + ", ".join(choice or '""' for choice in choices))
    return value


def _string(value: object, limits: _Limits) -> str:
    if isinstance(value, str) and (value or limits["may_be_empty"]):
        return value if limits["kind"] == "secret" else _without_null(value)
    raise _Wrong("give a string" if limits["may_be_empty"] else "give a string that is not empty")


def _strings(value: object, limits: _Limits) -> tuple[str, ...]:
    if isinstance(value, str) and not value.lstrip().startswith("["):
        value = _joined([word.strip() for word in value.split(",") if word.strip()])
    value = _of_json(value)
    if isinstance(value, (list, tuple)) and all(isinstance(word, str) and word for word in value):
        return tuple(_without_null(word) for word in value)
    raise _Wrong("give a list of strings, none of them empty")


def _without_null(text: str) -> str:
    """A text, which the system may take for a path or a name."""
    if "\0" in text:
        raise _Wrong("give a text without a null character")
    return text


def _headers(value: object, limits: _Limits) -> tuple[tuple[str, str], ...]:
    value = _of_json(value)
    if isinstance(value, Mapping):
        value = tuple(value.items())
    pairs = value if isinstance(value, (list, tuple)) else (None,)
    if all(
        isinstance(pair, (list, tuple))
        and len(pair) == 2
        and all(isinstance(one, str) and one.isascii() and one.isprintable() for one in pair)
        for pair in pairs
    ):
        return tuple((name, text) for name, text in pairs)
    raise _Wrong("give a table of headers, with a text for each name, in ASCII and in one line")


def _joined(words: list[str]) -> list[str]:
    """The words of a list; in a URL of Sentinel a comma separates hosts, and the path comes last."""
    joined: list[str] = []
    for word in words:
        is_open = joined and "+sentinel://" in joined[-1] and "://" not in word
        if is_open and "/" not in joined[-1].partition("://")[2]:
            joined[-1] += f",{word}"
        else:
            joined.append(word)
    return joined


def _of_json(value: object) -> object:
    """What a string says in JSON, None if it is not JSON; any other value as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return None


_READERS: Final[Mapping[str, Callable[[object, _Limits], object]]] = {
    "seconds": _seconds,
    "integer": _integer,
    "bytes": _integer,
    "port": _integer,
    "boolean": _boolean,
    "choice": _choice,
    "string": _string,
    "secret": _string,
    "url": _string,
    "strings": _strings,
    "headers": _headers,
}


# --- the tree ----------------------------------------------------------------------------


class ConfigReader:
    """Reads one tree and collects its mistakes in `problems`."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def note(self, key: str, value: object, allowed: str, *, is_secret: bool = False) -> None:
        """Note one mistake."""
        self.problems.append(problem(key, value, allowed, is_secret=is_secret))

    def config(self, tree: Mapping[str, object]) -> Config:
        """Read the whole configuration."""
        return cast(Config, self._section(Config, tree, ""))

    def _section(self, cls: type, tree: object, path: str) -> object:
        if not isinstance(tree, Mapping):
            self.note(path or "the configuration", tree, "give a table of options")
            return cls()
        hints = _types(cls)
        known = {option.name: option for option in fields(cls)}
        values = {}
        for name, value in tree.items():
            if name in known:
                values[name] = self._option(known[name], hints[name], value, path + name)
            else:
                is_secret = _SECRET_NAME.search(str(name)) is not None
                allowed = _unknown_key(str(name), known, path)
                self.note(f"{path}{name}", value, allowed, is_secret=is_secret)
        return cls(**values)

    def _option(self, option: Field[Any], hint: Any, value: object, key: str) -> object:
        if is_dataclass(hint):
            return self._section(cast(type, hint), value, key + ".")
        kind = option.metadata["kind"]
        if kind == "namespaces":
            return self._namespaces(value, key)
        if kind == "tables":
            return self._tables(option.metadata["of"], value, key)
        try:
            return _READERS[kind](value, option.metadata)
        except _Wrong as wrong:
            self.note(key, value, str(wrong), is_secret=not option.repr)
            return option.default if option.default is not MISSING else ""

    def _tables(self, cls: type, value: object, key: str) -> tuple[Any, ...]:
        value = _of_json(value)
        if not isinstance(value, (list, tuple)):
            self.note(key, value, "give a list of tables", is_secret=True)
            return ()
        found: list[Any] = [
            self._section(cls, item, f"{key}[{index}].") for index, item in enumerate(value)
        ]
        names = [one.name for one in found]
        for index, name in enumerate(names):
            if not name or names.index(name) < index:
                self.note(f"{key}[{index}].name", name, "give each of them a name of its own")
        return tuple(found)

    def _namespaces(self, value: object, key: str) -> tuple[Namespace, ...]:
        value = _of_json(value)
        if not isinstance(value, list):
            self.note(key, value, "give a list of tables, each with a name and options")
            return ()
        found = [self._namespace(item, f"{key}[{index}]") for index, item in enumerate(value)]
        names = [space.name for space in found if space.name]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.note(key, name, "give each namespace a name of its own")
        return tuple(found)

    def _namespace(self, item: object, key: str) -> Namespace:
        if not isinstance(item, Mapping):
            self.note(key, item, "give a table with a name and options")
            return Namespace("")
        name = item.get("name", "")
        if not isinstance(name, str) or not _NAMESPACE_NAME.fullmatch(name):
            self.note(
                f"{key}.name", name, "give 2 letters, digits, hyphens or underscores, or more"
            )
            name = ""
        options = {option: value for option, value in item.items() if option != "name"}
        return Namespace(
            name, cast(ChannelOptions, self._section(ChannelOptions, options, f"{key}."))
        )


@cache
def _types(cls: type) -> Mapping[str, Any]:
    # Each call evaluates all annotations anew; Python 3.12 takes half as long again as 3.11.
    return get_type_hints(cls)


def _unknown_key(name: str, known: Mapping[str, object], path: str) -> str:
    """Say that a key is unknown, and which one was probably meant."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"no such option; the nearest is {path}{near[0]}"
    elsewhere = {key.rpartition(".")[2]: key for key in reversed(known_keys())}
    near = difflib.get_close_matches(name, elsewhere, n=1, cutoff=0.8)
    if near:
        return f"no such option; the nearest is {elsewhere[near[0]]}"
    return f"no such option; known here are {', '.join(known)}"


def options_of(cls: type, path: str = "") -> Iterator[tuple[str, Field[Any]]]:
    """Every option below `cls` with its dotted key; namespaces count as one."""
    hints = _types(cls)
    for option in fields(cls):
        if is_dataclass(hints[option.name]):
            yield from options_of(cast(type, hints[option.name]), f"{path}{option.name}.")
        else:
            yield path + option.name, option


def known_keys() -> tuple[str, ...]:
    """The dotted keys of all options."""
    return tuple(key for key, _ in options_of(Config))
