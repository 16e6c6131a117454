"""Reads a configuration file of Centrifugo: JSON, YAML or TOML, as its name says.

Guarantees
- The size and the depth of a document are bounded, and so are the time and memory that it takes.
- Anchors and aliases of YAML are refused: a few lines of them can stand for billions of values.
- A document that cannot be read is a `UsageError` that says what is wrong, with the line where it is known.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Mapping
from datetime import date, time
from pathlib import Path
from typing import Any, Final, NoReturn

from cluster.errors import UsageError

#: The largest file that is read. A configuration with a thousand namespaces has about 300 KB.
MAXIMUM_BYTES: Final = 1 << 20
#: Levels of tables and lists in each other; a configuration of Centrifugo has about six.
MAXIMUM_DEPTH: Final = 32

Document = dict[str, Any]


def read_document(path: str) -> Document:
    """The options of a file, by name.

    Raises:
        UsageError: if there is no such file, it is too large, or it is not what its name says.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _PARSERS:
        raise UsageError(
            f"{path}: name a file that ends in .json, .yaml, .yml or .toml, so that its format is known"
        )
    parse, kind = _PARSERS[suffix]
    try:
        document = parse(_text(path))
    except RecursionError:
        raise UsageError(f"{path} is nested too deeply") from None
    except ValueError as error:
        raise UsageError(f"{path} is not {kind}: {_one_line(error)}") from None
    if not isinstance(document, dict):
        raise UsageError(f"{path} must hold a table of options, and holds something else")
    return {
        str(name): _checked(value, path, 1) for name, value in document.items() if value is not None
    }


def _text(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(content) > MAXIMUM_BYTES:
        raise UsageError(f"{path} is larger than {MAXIMUM_BYTES} bytes, so it is no configuration")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: see byte {error.start}") from None


def _checked(value: object, path: str, depth: int) -> object:
    """The value with names, dates and times as strings, and without null, which is as good as nothing.

    Raises:
        UsageError: if it is nested too deeply, or holds something that no option can be.
    """
    if depth > MAXIMUM_DEPTH:
        raise UsageError(f"{path} is nested too deeply: at most {MAXIMUM_DEPTH} levels are read")
    if isinstance(value, dict):
        return {
            str(_checked(str(name), path, depth)): _checked(inner, path, depth + 1)
            for name, inner in value.items()
            if inner is not None
        }
    if isinstance(value, list):
        return [_checked(inner, path, depth + 1) for inner in value if inner is not None]
    if isinstance(value, str) and not _is_unicode(value):
        raise UsageError(f"{path} holds half of a surrogate pair, which is no character")
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{path} holds {value}, which no option can be")
    if isinstance(value, (date, time)):
        return value.isoformat()
    if not isinstance(value, (str, int, float)):
        raise UsageError(
            f"{path} holds a value of a kind that no option has: {type(value).__name__}"
        )
    return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


# --- the formats ---------------------------------------------------------------------------


def _json(text: str) -> object:
    return json.loads(text, parse_constant=_no_number, object_pairs_hook=_without_repetition)


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _without_repetition(pairs: list[tuple[str, object]]) -> Document:
    document: Document = {}
    for name, value in pairs:
        if name in document:
            raise ValueError(f"the option {name} is given twice in one table")
        document[name] = value
    return document


def _yaml(text: str) -> object:
    import yaml

    # The one in C is many times faster, and has no limit of its own to the depth: see below.
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    depth = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else "?"
                raise ValueError(  # noqa: TRY004 - the document is wrong, no argument is
                    f"line {line} has an alias (*{event.anchor}), which is not read here: write out"
                    " what it stands for, or convert the file to JSON"
                )
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAXIMUM_DEPTH:
                raise RecursionError
        return yaml.load(text, Loader=loader)  # noqa: S506 - both are safe
    except yaml.YAMLError as error:
        raise ValueError(_yaml_problem(error)) from None


def _yaml_problem(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"line {mark.line + 1}: {problem}" if mark and problem else str(error)


_PARSERS: Final[Mapping[str, tuple[Callable[[str], object], str]]] = {
    ".json": (_json, "JSON"),
    ".yaml": (_yaml, "YAML"),
    ".yml": (_yaml, "YAML"),
    ".toml": (tomllib.loads, "TOML"),
}
