"""From a tree of plain values to a `Config`, or to a list of everything wrong with it.

Rules
- A tree is what TOML or JSON give: dicts, lists, strings, numbers, booleans.
- Values from the environment are text; every reader takes the text form of its value too.
- Reading never stops at a mistake: it is noted, the default is taken, and reading goes on.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Final, cast, get_type_hints

from cluster import durations
from cluster.config.model import ChannelOptions, Config, Namespace
from cluster.errors import Problem

STARS: Final = "***"
_NAMESPACE_NAME: Final = re.compile(r"[-a-zA-Z0-9_.]{2,64}")
_SECRET_NAME: Final = re.compile("key|secret|passw|token|url", re.IGNORECASE)
_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


class _Wrong(Exception):
    """The value is not allowed; the argument says what is."""


def parse_seconds(value: object) -> float:
    """Read a duration: a number of seconds, or text such as "25s", "1h30m", "500ms".

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


def _read_seconds(value: object, meta: Mapping[str, Any]) -> float:
    minimum = meta["minimum"]
    wrong = _Wrong(
        f'give seconds as a number, or text such as "25s" or "500ms", at least {minimum:g}'
    )
    if isinstance(value, (bool, list, dict)) or value is None:
        raise wrong
    try:
        seconds = parse_seconds(value)
    except ValueError:
        raise wrong from None
    if seconds < minimum:
        raise wrong
    return seconds


def _read_count(value: object, meta: Mapping[str, Any]) -> int:
    minimum, maximum = meta["minimum"], meta["maximum"]
    noun = {"bytes": "a whole number of bytes", "port": "a port number"}.get(
        meta["kind"], "a whole number"
    )
    limits = f"from {minimum} to {maximum}" if maximum is not None else f"of at least {minimum}"
    number = _whole_number(value)
    if number is None or number < minimum or (maximum is not None and number > maximum):
        raise _Wrong(f"give {noun} {limits}")
    return number


def _whole_number(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value.strip()):
        return int(value)
    return None


def _read_switch(value: object, meta: Mapping[str, Any]) -> bool:
    if isinstance(value, bool):
        return value
    text = value.strip().lower() if isinstance(value, str) else ""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise _Wrong("give true or false")


def _read_word(value: object, meta: Mapping[str, Any]) -> str:
    choices = meta["choices"]
    if choices:
        if value in choices:
            return cast(str, value)
        raise _Wrong(f"give one of {', '.join(choices)}")
    if not isinstance(value, str) or not (value or meta["empty"]):
        raise _Wrong("give a text" if meta["empty"] else "give a text that is not empty")
    return value


def _read_secret(value: object, meta: Mapping[str, Any]) -> str:
    if isinstance(value, str):
        return value
    raise _Wrong("give a text")


def _read_words(value: object, meta: Mapping[str, Any]) -> tuple[str, ...]:
    if isinstance(value, str):
        value = _list_of_text(value)
    if isinstance(value, (list, tuple)) and all(isinstance(word, str) and word for word in value):
        return tuple(value)
    raise _Wrong("give a list of texts, none of them empty")


def _list_of_text(text: str) -> object:
    if text.lstrip().startswith("["):
        return _json_or_none(text)
    return [word.strip() for word in text.split(",") if word.strip()]


def _json_or_none(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


_READERS: Final[Mapping[str, Callable[[object, Mapping[str, Any]], object]]] = {
    "seconds": _read_seconds,
    "count": _read_count,
    "bytes": _read_count,
    "port": _read_count,
    "switch": _read_switch,
    "word": _read_word,
    "words": _read_words,
    "secret": _read_secret,
}


def shown(value: object, *, is_secret: bool = False) -> str:
    """A value as it may stand in a message: short, quoted, secrets as stars."""
    if is_secret:
        return STARS
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


class Reading:
    """One reading of one tree; collects its mistakes in `problems`."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def note(self, key: str, value: object, allowed: str, *, is_secret: bool = False) -> None:
        """Note one mistake."""
        self.problems.append(Problem(key, shown(value, is_secret=is_secret), allowed))

    def config(self, tree: Mapping[str, object]) -> Config:
        """Read the whole configuration."""
        return cast(Config, self._section(Config, tree, ""))

    def _section(self, cls: type, tree: object, path: str) -> object:
        if not isinstance(tree, Mapping):
            self.note(path or "the configuration", tree, "give a table of options")
            return cls()
        hints = get_type_hints(cls)
        known = {option.name: option for option in fields(cls)}
        self._unknown(tree, known, path)
        values = {
            name: self._option(known[name], hints[name], value, path + name)
            for name, value in tree.items()
            if name in known
        }
        return cls(**values)

    def _unknown(self, tree: Mapping[str, object], known: Mapping[str, object], path: str) -> None:
        for name in tree:
            if name not in known:
                self.note(
                    path + str(name),
                    tree[name],
                    unknown_key(str(name), known, path),
                    is_secret=_SECRET_NAME.search(str(name)) is not None,
                )

    def _option(self, option: Field[Any], hint: Any, value: object, key: str) -> object:
        if is_dataclass(hint):
            return self._section(cast(type, hint), value, key + ".")
        kind = option.metadata["kind"]
        if kind == "namespaces":
            return self._namespaces(value, key)
        try:
            return _READERS[kind](value, option.metadata)
        except _Wrong as wrong:
            self.note(key, value, str(wrong), is_secret=not option.repr)
            return option.default if option.default is not MISSING else ""

    def _namespaces(self, value: object, key: str) -> tuple[Namespace, ...]:
        if isinstance(value, str):
            value = _json_or_none(value)
        if not isinstance(value, list):
            self.note(key, value, "give a list of tables, each with a name and options")
            return ()
        found = [self._namespace(item, f"{key}[{index}]") for index, item in enumerate(value)]
        names = [space.name for space in found if space.name]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.note(key, name, "give each namespace one name of its own")
        return tuple(found)

    def _namespace(self, item: object, key: str) -> Namespace:
        if not isinstance(item, Mapping):
            self.note(key, item, "give a table with a name and options")
            return Namespace("")
        name = item.get("name", "")
        if not isinstance(name, str) or not _NAMESPACE_NAME.fullmatch(name):
            self.note(
                f"{key}.name", name, "give 2 to 64 letters, digits, hyphens, dots or underscores"
            )
            name = ""
        options = {option: value for option, value in item.items() if option != "name"}
        return Namespace(
            name, cast(ChannelOptions, self._section(ChannelOptions, options, f"{key}."))
        )


def unknown_key(name: str, known: Mapping[str, object], path: str) -> str:
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
    hints = get_type_hints(cls)
    for option in fields(cls):
        if is_dataclass(hints[option.name]):
            yield from options_of(cast(type, hints[option.name]), f"{path}{option.name}.")
        else:
            yield path + option.name, option


def known_keys() -> tuple[str, ...]:
    """The dotted keys of all options."""
    return tuple(key for key, _ in options_of(Config))
