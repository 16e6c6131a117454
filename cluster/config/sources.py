"""Where values come from: a file, the environment, flags; and how a `Config` travels.

Guarantees
- `load` either gives a configuration that holds together or raises `ConfigError` with every
  mistake of every source.
- `from_json(to_json(config)) == config`; the document holds secrets and belongs into a pipe.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit, urlunsplit

from cluster.config.checks import check
from cluster.config.model import Config
from cluster.config.reading import STARS, Reading, options_of
from cluster.errors import ConfigError, Problem

ENV_PREFIX: Final = "WS_CLUSTER_"
_MAXIMUM_SECRET_BYTES: Final = 65536


def load(
    path: str | None = None,
    *,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    needs_keys: bool = True,
) -> Config:
    """Read the configuration from all its sources.

    Args:
        path: a TOML or JSON file; None reads none.
        env: the environment; only names with `WS_CLUSTER_` count.
        flags: dotted keys and values, from the command line.
        needs_keys: whether a server is about to run on it, which needs insecure mode or keys.

    Raises:
        ConfigError: if anything at all is wrong, with every mistake.
    """
    reading = Reading()
    tree = _read_file(path, reading)
    for key, value in _env_options(env or {}):
        _put(tree, key, value, reading)
    for key, given in (flags or {}).items():
        _put(tree, key, given, reading)
    base = Path(path).resolve().parent if path else Path.cwd()
    _read_secret_files(tree, base, reading)
    config = reading.config(tree)
    problems = reading.problems + check(config, {p.key for p in reading.problems}, needs_keys)
    if problems:
        raise ConfigError(problems)
    return config


def _read_file(path: str | None, reading: Reading) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8")
        tree = json.loads(text) if path.endswith(".json") else tomllib.loads(text)
    except OSError as error:
        reading.note("--config", path, f"the file cannot be read: {error.strerror or error}")
    except ValueError as error:
        kind = "JSON" if path.endswith(".json") else "TOML"
        reading.note("--config", path, f"the file is no {kind}: {error}")
    else:
        if isinstance(tree, dict):
            return tree
        reading.note("--config", path, "the file must hold one table of options")
    return {}


def _env_options(env: Mapping[str, str]) -> list[tuple[str, str]]:
    return [
        (name.removeprefix(ENV_PREFIX).lower().replace("__", "."), value)
        for name, value in sorted(env.items())
        if name.startswith(ENV_PREFIX)
    ]


def _put(tree: dict[str, Any], key: str, value: object, reading: Reading) -> None:
    """Set a dotted key; `<secret>_file` and `<secret>` from a stronger source replace each other."""
    *sections, name = key.split(".")
    place = tree
    for section in sections:
        inner = place.setdefault(section, {})
        if not isinstance(inner, dict):
            reading.note(section, inner, "give a table of options")
            return
        place = inner
    if name.endswith("_file"):
        place.pop(name.removesuffix("_file"), None)
    else:
        place.pop(f"{name}_file", None)
    place[name] = value


def _read_secret_files(tree: dict[str, Any], base: Path, reading: Reading) -> None:
    for key, option in options_of(Config):
        if option.metadata["kind"] != "secret":
            continue
        *sections, name = key.split(".")
        place: Any = tree
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if isinstance(place, dict) and f"{name}_file" in place:
            _read_secret_file(place, name, key, base, reading)


def _read_secret_file(
    place: dict[str, Any], name: str, key: str, base: Path, reading: Reading
) -> None:
    given = place.pop(f"{name}_file")
    if name in place:
        reading.note(f"{key}_file", given, f"give either {key} or {key}_file, not both")
        return
    if not isinstance(given, str) or not given:
        reading.note(f"{key}_file", given, "give the path of a file that holds the secret")
        return
    try:
        with (base / given).open("rb") as file:
            secret = file.read(_MAXIMUM_SECRET_BYTES).decode("utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        reading.note(f"{key}_file", given, f"the file cannot be read: {reason}")
        return
    if not secret:
        reading.note(f"{key}_file", given, "the file is empty; it must hold the secret")
    place[name] = secret


def to_json(config: Config) -> bytes:
    """The configuration as one JSON document, secrets included."""
    return json.dumps(dataclasses.asdict(config), separators=(",", ":")).encode()


def from_json(document: bytes) -> Config:
    """The inverse of `to_json`.

    Raises:
        ConfigError: if it is not such a document.
    """
    reading = Reading()
    try:
        tree = json.loads(document)
    except ValueError:
        raise ConfigError(
            [Problem("the handed-over configuration", "…", "it must be JSON")]
        ) from None
    config = reading.config(_with_flat_namespaces(tree))
    if reading.problems:
        raise ConfigError(reading.problems)
    return config


def _with_flat_namespaces(tree: Any) -> dict[str, object]:
    if isinstance(tree, dict) and isinstance(tree.get("channel"), dict):
        spaces = tree["channel"].get("namespaces", [])
        tree["channel"]["namespaces"] = [
            {"name": space["name"], **space["options"]} for space in spaces
        ]
    return cast(dict[str, object], tree)


def printable(config: Config) -> dict[str, Any]:
    """The configuration as it may be shown: secrets are stars, URLs lose their passwords."""
    tree = _with_flat_namespaces(dataclasses.asdict(config))
    for key, option in options_of(Config):
        *sections, name = key.split(".")
        place: Any = tree
        for section in sections:
            place = place[section]
        if option.metadata["kind"] == "secret" and place[name]:
            place[name] = STARS
    broker: Any = tree["broker"]
    broker["redis_urls"] = [without_password(url) for url in config.broker.redis_urls]
    return tree


def without_password(url: str) -> str:
    """A URL whose password is stars."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    user = parts.netloc.rpartition("@")[0].partition(":")[0]
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{STARS}@{host}"))
