"""The sources of a configuration (a file, the environment, flags) and its form as JSON.

- `load` either returns a configuration that keeps every rule or raises `ConfigError` with the
  mistakes of all sources.
- `from_json(to_json(config)) == config`. The document holds secrets: it is written to a pipe only.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlunsplit

from cluster.config.checks import check
from cluster.config.model import Config
from cluster.config.reader import STARS, ConfigReader, known_keys, options_of
from cluster.config.redis_url import split_url, with_password
from cluster.config.sentinel_url import with_sentinel_password, without_passwords
from cluster.errors import ConfigError, Problem
from cluster.url_credentials import without_credentials

ENV_PREFIX: Final = "WS_CLUSTER_"

#: The configuration of `up --development`.
DEVELOPMENT_FILE: Final = Path(__file__).resolve().parent / "development.toml"

_MAXIMUM_SECRET_BYTES: Final = 65536
#: Kinds of options that are printed as stars, and may stand in a file of their own.
_SECRETS: Final = frozenset({"secret", "headers"})
_URLS: Final = frozenset({"url"})
# Kubernetes describes each Service of the namespace in variables named after it, and one named
# ws-cluster or ws-cluster-… has our prefix:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_VARIABLES: Final = (
    (re.compile(r"(.+_)?SERVICE_HOST"), re.compile(r"[0-9A-Fa-f.:]*|None")),
    (re.compile(r"(.+_)?SERVICE_PORT(_.+)?"), re.compile(r"\d*")),
    (re.compile(r"(.+_)?PORT(_\d+_(TCP|UDP|SCTP))?"), re.compile(r"(tcp|udp|sctp)://.*")),
    (re.compile(r"(.+_)?PORT_\d+_(TCP|UDP|SCTP)_PROTO"), re.compile(r"tcp|udp|sctp")),
    (re.compile(r"(.+_)?PORT_\d+_(TCP|UDP|SCTP)_PORT"), re.compile(r"\d+")),
    (re.compile(r"(.+_)?PORT_\d+_(TCP|UDP|SCTP)_ADDR"), re.compile(r"[0-9A-Fa-f.:]*|None")),
)

_Tree = dict[str, Any]


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
        env: the environment; only names with `WS_CLUSTER_` count, without those that describe a
            Service of Kubernetes (`service_variables`).
        flags: dotted keys and values, from the command line.
        needs_keys: whether insecure mode or keys are required, as they are to start a server.

    Raises:
        ConfigError: with every mistake of every source.
    """
    reader = ConfigReader()
    tree = _read_file(path, reader)
    for key, value in [*_env_options(env or {}), *(flags or {}).items()]:
        _put(tree, key, value, reader)
    folder = _folder_of(path)
    for table, name, key in _of_kinds(_SECRETS, tree):
        _read_secret_file(table, name, key, folder, reader)
    config = reader.config(tree)
    problems = reader.problems + check(config, {p.key for p in reader.problems}, needs_keys)
    if problems:
        raise ConfigError(problems)
    return _with_passwords(config)


def _with_passwords(config: Config) -> Config:
    """Put the passwords that have options of their own into every URL of a store that names none."""
    urls = config.broker.redis_urls
    if password := config.broker.redis_password:
        urls = tuple(with_password(url, password) for url in urls)
    if password := config.broker.sentinel_password:
        urls = tuple(with_sentinel_password(url, password) for url in urls)
    if urls == config.broker.redis_urls:
        return config
    return dataclasses.replace(config, broker=dataclasses.replace(config.broker, redis_urls=urls))


def _read_file(path: str | None, reader: ConfigReader) -> _Tree:
    if path is None:
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8")
        tree = json.loads(text) if path.endswith(".json") else tomllib.loads(text)
    except OSError as error:
        reader.note("--config", path, f"the file cannot be read: {error.strerror or error}")
    except RecursionError:
        reader.note("--config", path, "the file is nested too deep")
    except ValueError as error:
        kind = "JSON" if path.endswith(".json") else "TOML"
        reader.note("--config", path, f"the file is not {kind}: {error}")
    else:
        if isinstance(tree, dict):
            return tree
        reader.note("--config", path, "the file must hold one table of options")
    return {}


def service_variables(env: Mapping[str, str]) -> list[str]:
    """The names with our prefix that describe a Service of Kubernetes, and are no options."""
    options = known_keys()
    return [
        name
        for name, value in sorted(env.items())
        if name.startswith(ENV_PREFIX)
        # A Service may be called ws-cluster-a--b, but where there is an option its value is one.
        and _key_of(name).removesuffix("_file") not in options
        and any(
            of_name.fullmatch(name.removeprefix(ENV_PREFIX)) and of_value.fullmatch(value)
            for of_name, of_value in _SERVICE_VARIABLES
        )
    ]


def _key_of(name: str) -> str:
    """The dotted key of a variable: two underscores are between a section and its option."""
    return name.removeprefix(ENV_PREFIX).lower().replace("__", ".")


def _env_options(env: Mapping[str, str]) -> list[tuple[str, object]]:
    ignored = set(service_variables(env))
    return [
        (_key_of(name), value)
        for name, value in sorted(env.items())
        if name.startswith(ENV_PREFIX) and name not in ignored
    ]


def _put(tree: _Tree, key: str, value: object, reader: ConfigReader) -> None:
    """Set a dotted key; `<secret>_file` and `<secret>` of a stronger source replace each other."""
    *sections, name = key.split(".")
    table = tree
    for section in sections:
        inner = table.setdefault(section, {})
        if not isinstance(inner, dict):
            reader.note(section, inner, "give a table of options")
            return
        table = inner
    table.pop(name.removesuffix("_file") if name.endswith("_file") else f"{name}_file", None)
    table[name] = value


def _of_kinds(kinds: frozenset[str], tree: Mapping[str, Any]) -> Iterator[tuple[_Tree, str, str]]:
    """The table in which each option of the kinds stands, the option's name in it and its dotted key."""
    for key, option in options_of(Config):
        kind = option.metadata["kind"]
        if kind not in kinds | {"tables"}:
            continue
        *sections, name = key.split(".")
        table: Any = tree
        for section in sections:
            table = table.get(section) if isinstance(table, dict) else None
        if not isinstance(table, dict):
            continue
        if kind in kinds:
            yield table, name, key
            continue
        tables = table.get(name, ())
        for index, item in enumerate(tables if isinstance(tables, list | tuple) else ()):
            for inner, of_table in options_of(option.metadata["of"]):
                if of_table.metadata["kind"] not in kinds:
                    continue
                *inner_sections, last = inner.split(".")
                place: Any = item
                for section in inner_sections:
                    place = place.get(section) if isinstance(place, dict) else None
                if isinstance(place, dict):
                    yield place, last, f"{key}[{index}].{inner}"


def _folder_of(path: str | None) -> Path:
    """The directory of the configuration file, through links; where the files of secrets are looked for."""
    if not path:
        return Path()
    try:
        return Path(path).resolve().parent
    except OSError:
        # The current directory is gone; that the file cannot be read has been noted.
        return Path(path).parent


def _read_secret_file(
    table: _Tree, name: str, key: str, folder: Path, reader: ConfigReader
) -> None:
    if f"{name}_file" not in table:
        return
    given = table.pop(f"{name}_file")
    if name in table:
        reader.note(f"{key}_file", given, f"give either {key} or {key}_file, not both")
        return
    if not isinstance(given, str) or not given:
        reader.note(f"{key}_file", given, "give the path of a file that holds the secret")
        return
    try:
        with (folder / given).open("rb") as file:
            secret = file.read(_MAXIMUM_SECRET_BYTES).decode("utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        if "\0" in given:
            reason = "a path has no null character"
        reader.note(f"{key}_file", given, f"the file cannot be read: {reason}")
        return
    if not secret:
        reader.note(f"{key}_file", given, "the file is empty; it must hold the secret")
    table[name] = secret


def to_json(config: Config) -> bytes:
    """The configuration as one JSON document, secrets included."""
    return json.dumps(dataclasses.asdict(config), separators=(",", ":")).encode()


def from_json(document: bytes) -> Config:
    """The inverse of `to_json`.

    Raises:
        ConfigError: if it is not such a document.
    """
    reader = ConfigReader()
    try:
        tree = json.loads(document)
    except ValueError:
        raise ConfigError(
            [Problem("the configuration of the process", "…", "it must be JSON")]
        ) from None
    config = reader.config(_with_flat_namespaces(tree))
    if reader.problems:
        raise ConfigError(reader.problems)
    return config


def _with_flat_namespaces(tree: Any) -> _Tree:
    """A dumped configuration as a file has it: the options of a namespace beside its name."""
    if isinstance(tree, dict) and isinstance(tree.get("channel"), dict):
        spaces = tree["channel"].get("namespaces", [])
        tree["channel"]["namespaces"] = [
            {"name": space["name"], **space["options"]} for space in spaces
        ]
    return cast(_Tree, tree)


def printable(config: Config) -> dict[str, Any]:
    """The configuration as it may be printed: secrets and passwords of URLs are stars."""
    tree = _with_flat_namespaces(dataclasses.asdict(config))
    for table, name, _ in _of_kinds(_SECRETS, tree):
        if table[name]:
            table[name] = STARS
    for table, name, _ in _of_kinds(_URLS, tree):
        table[name] = without_credentials(table[name], keeps_query=name.endswith("_link"))
    tree["broker"]["redis_urls"] = [without_password(url) for url in config.broker.redis_urls]
    return tree


def without_password(url: str) -> str:
    """The URL of a store, whose password is stars; its user and options say which store is used."""
    parts = split_url(url)
    parts = parts._replace(query=without_passwords(parts.query, STARS))
    if "@" not in parts.netloc:
        return urlunsplit(parts)
    user = parts.netloc.rpartition("@")[0].partition(":")[0]
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{STARS}@{host}"))
