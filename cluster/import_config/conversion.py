"""Turns the options of Centrifugo into ours, and lists what is lost and what will differ.

Guarantees
- Every option of the given tree is taken over, listed, or has a value with which nothing changes.
- Each value that is taken over is one that `ws-cluster check-config` allows; others are listed.
- No value of a secret is in a remark.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

from cluster.config import ChannelOptions, Config
from cluster.config.checks import check
from cluster.config.proxy_options import NamedProxy
from cluster.config.reader import ConfigReader, options_of
from cluster.errors import Problem
from cluster.import_config.counterparts import LIMITS, Counterpart, counterpart, is_own
from cluster.import_config.flat_names import sectioned
from cluster.import_config.formats import Document
from cluster.import_config.store_urls import store_of

_NAMESPACES: Final = "channel.namespaces"
_PROXIES: Final = "proxies"
_WITHOUT_NAMESPACE: Final = "channel.without_namespace"
_BARE_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?")
#: A mistake about such an option as a whole, such as a name that stands twice, loses not all of it.
_LISTS_OF_TABLES: Final = ("namespaces", "tables")
_NOTHING: Final = (None, "", False, 0, 0.0, "0", "0s")


def limits_here() -> dict[str, str]:
    """The limits that Centrifugo does not have, with their defaults."""
    return {key: text.format(attrgetter(key)(Config())) for key, text in LIMITS.items()}


@dataclass(slots=True)
class Conversion:
    """Our configuration, and what there is to say about it.

    Attributes:
        tree: the options, as a file has them.
        differs: what will differ, and what to do: one sentence by the name of an option.
        lost: what has no counterpart, in the same form.
        limits: what is limited here by default, and not there, in the same form.
        problems: what has to be changed before a cluster can start.
        count: options that were taken over.
    """

    tree: Document = field(default_factory=dict)
    differs: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    count: int = 0
    limits: dict[str, str] = field(default_factory=limits_here)


def convert(document: Document) -> Conversion:
    """Convert a configuration of Centrifugo, of version 6, 5, or mixed."""
    given, flat = sectioned(document)
    converter = _Converter(flat)
    store = store_of(given)
    converter.differs.update(store.differs)
    converter.lost.update(store.lost)
    for key, value in store.options.items():
        converter.take(key, value)
    converter.walk(given, "")
    converter.finish()
    return Conversion(
        converter.tree, converter.differs, converter.lost, converter.problems, converter.count
    )


def known_options() -> Mapping[str, str]:
    """Our options that Centrifugo has too, by dotted key, with their kind; namespaces count as one."""
    return {key: str(one.metadata["kind"]) for key, one in options_of(Config) if not is_own(key)}


class _Converter:
    def __init__(self, flat: Mapping[str, str]) -> None:
        self.tree: Document = {}
        self.differs: dict[str, str] = {}
        self.lost: dict[str, str] = {}
        self.problems: list[Problem] = []
        self.count = 0
        self._flat = flat
        self._kinds = {key: str(one.metadata["kind"]) for key, one in options_of(Config)}
        self._ours = known_options()
        self._channel_options = {name for name, _ in options_of(ChannelOptions)}
        self._proxy_options = {name for name, _ in options_of(NamedProxy)}
        #: The option of Centrifugo that gave each of ours, where the names differ.
        self._sources: dict[str, str] = {}

    # --- reading what is given -----------------------------------------------------------------

    def walk(self, table: Document, path: str) -> None:
        """Take over or list each option below a table."""
        for name, value in table.items():
            key = f"{path}{name}"
            row = counterpart(key)
            if key == _NAMESPACES and isinstance(value, list):
                self._namespaces(value)
            elif key == _PROXIES and isinstance(value, list):
                self._proxies(value)
            elif key == "channel.history_meta_ttl":
                continue
            elif key == "shutdown.timeout":
                self._shutdown(key, value, row or Counterpart())
            elif key == "admin.password":
                self._admin_password(key, value, row or Counterpart())
            elif row is not None and row.to and (row.to == key or key not in self._ours):
                self._renamed(key, value, row)
            elif key in self._ours:
                self.take(key, value)
            elif isinstance(value, dict) and any(one.startswith(f"{key}.") for one in self._ours):
                self.walk(value, f"{key}.")
            elif row is not None:
                self._remark(key, value, row)
            elif isinstance(value, dict) and value:
                self.walk(value, f"{key}.")
            elif value not in _NOTHING:
                self._lose(key, unknown(key, self._ours))
        if path == "channel.":
            self._history_meta_ttl(table.get("history_meta_ttl"))

    def _namespaces(self, value: list[Any]) -> None:
        spaces = []
        for index, item in enumerate(value):
            if not isinstance(item, dict):
                self._lose(f"{_NAMESPACES}[{index}]", "a namespace is a table with a name")
                continue
            spaces.append(self._namespace(item, f"{_NAMESPACES}[{index}]"))
        self._put(_NAMESPACES, spaces)

    def _namespace(self, item: Document, key: str) -> Document:
        space: Document = {}
        for name, value in item.items():
            row = counterpart(f"{_WITHOUT_NAMESPACE}.{name}")
            if name == "name":
                space[name] = value
                self.count += 1
            elif name in self._channel_options:
                if row is None or value not in row.usual:
                    space[name] = value
                    self.count += 1
            elif row is not None:
                self._remark(f"{key}.{name}", value, row)
            elif value not in _NOTHING and value not in ([], {}):
                self._lose(f"{key}.{name}", unknown(name, self._channel_options))
        return space

    def _proxies(self, value: list[Any]) -> None:
        proxies = []
        for index, item in enumerate(value):
            key = f"{_PROXIES}[{index}]"
            if isinstance(item, dict):
                proxies.append(self._proxy(item, key, ""))
            else:
                self._lose(key, "a proxy is a table with a name")
        self._put(_PROXIES, proxies)

    def _proxy(self, item: Document, key: str, path: str) -> Document:
        proxy: Document = {}
        for name, value in item.items():
            row = counterpart(f"{_PROXIES}.{path}{name}")
            if f"{path}{name}" in self._proxy_options:
                proxy[name] = value
                self.count += 1
                if row is not None and row.differs and value:
                    self.differs[self._named(f"{key}.{name}")] = row.differs
            elif isinstance(value, dict) and row is None:
                if inner := self._proxy(value, f"{key}.{name}", f"{path}{name}."):
                    proxy[name] = inner
            elif row is not None:
                self._remark(f"{key}.{name}", value, row)
            elif value not in _NOTHING and value not in ([], {}):
                self._lose(f"{key}.{name}", unknown(f"{path}{name}", self._proxy_options))
        return proxy

    def _history_meta_ttl(self, value: object) -> None:
        """There is a default for all channels there; here each namespace has its own."""
        if value in _NOTHING:
            return
        channel = self.tree.setdefault("channel", {})
        for options in [
            channel.setdefault("without_namespace", {}),
            *channel.get("namespaces", []),
        ]:
            options.setdefault("history_meta_ttl", value)
        self.count += 1

    def _shutdown(self, key: str, value: object, row: Counterpart) -> None:
        self._renamed(key, value, row)
        seconds = self._value_of("shutdown.stop_grace_period", value)
        # A drain has to end before; the defaults are 3, 10 and 30 seconds.
        if isinstance(seconds, float) and seconds <= 10:
            self._put("shutdown.timeout", round(seconds * 0.8, 3))
            self._put("shutdown.drain_window", round(seconds * 0.3, 3))

    def _admin_password(self, key: str, value: object, row: Counterpart) -> None:
        if isinstance(value, str) and len(value.encode()) >= 32:
            self._renamed(key, value, Counterpart("admin.key"))
        else:
            self._remark(key, value, row)

    def _renamed(self, key: str, value: object, row: Counterpart) -> None:
        if value in row.usual:
            return
        if row.to != key:
            self._sources[row.to] = key
        self.take(row.to, row.convert(value) if row.convert else value)
        if row.differs and value not in _NOTHING:
            self.differs[self._named(key)] = row.differs

    def _remark(self, key: str, value: object, row: Counterpart) -> None:
        if not _asks_for_something(value, row.usual):
            return
        if row.is_lost:
            self._lose(key, row.differs)
        else:
            self.differs[self._named(key)] = row.differs

    def _lose(self, key: str, sentence: str) -> None:
        self.lost[self._named(key)] = sentence

    def _named(self, key: str) -> str:
        """The name in the file that was given."""
        source = self._sources.get(key, key)
        return self._flat.get(source, source)

    # --- what is written -----------------------------------------------------------------------

    def take(self, key: str, value: object) -> None:
        """Take over one value under our name."""
        kind = self._kinds.get(key)
        if kind is None:
            self._lose(key, "this version has no such option")
            return
        if kind in ("string", "secret", "choice") and type(value) in (int, float):
            # Centrifugo takes a number for a string too.
            value = str(value)
        self._put(key, value)
        self.count += 1

    def _put(self, key: str, value: object) -> None:
        *sections, name = key.split(".")
        table = self.tree
        for section in sections:
            table = table.setdefault(section, {})
        table[name] = value

    def finish(self) -> None:
        """Remove values that are not allowed, and find what keeps a cluster from starting."""
        self._remove_bare_durations()
        reader = ConfigReader()
        reader.config(self.tree)
        for problem in reversed(reader.problems):
            if self._kinds.get(problem.key) not in _LISTS_OF_TABLES and _remove(
                self.tree, problem.key
            ):
                self._lose(problem.key, f"the default is kept; {problem.allowed}")
                self.count -= 1
        reader = ConfigReader()
        settings = reader.config(self.tree)
        unread = {problem.key for problem in reader.problems}
        self.problems = reader.problems + check(settings, unread, needs_keys=True)

    def _remove_bare_durations(self) -> None:
        """A duration without a unit is nanoseconds there, and seconds here."""
        for key, table, name in list(_leaves(self.tree)):
            option = re.sub(rf"^{re.escape(_NAMESPACES)}\[\d+\]", _WITHOUT_NAMESPACE, key)
            value = table[name]
            is_bare = type(value) in (int, float) or (
                isinstance(value, str) and _BARE_NUMBER.fullmatch(value)
            )
            if self._kinds.get(option) != "seconds" or not is_bare or key.startswith("shutdown."):
                continue
            if float(value) != 0:
                del table[name]
                self.count -= 1
                sentence = (
                    "it cannot be turned off; the default is kept"
                    if float(value) < 0
                    else "the default is kept; a number without a unit has two meanings: write 25s"
                )
                self._lose(key, sentence)

    def _value_of(self, key: str, value: object) -> object:
        *sections, name = key.split(".")
        settings: object = ConfigReader().config({sections[0]: {name: value}})
        for part in key.split("."):
            settings = getattr(settings, part)
        return settings


def unknown(key: str, ours: Iterable[str]) -> str:
    """What is said of an option that nobody knows; the nearest is one of the same section only."""
    section, _, name = key.rpartition(".")
    names = {one.rpartition(".")[2]: one for one in ours if one.rpartition(".")[0] == section}
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.8)
    return f"no such option; the nearest is {names[near[0]]}" if near else "there is no such option"


def _asks_for_something(value: object, usual: tuple[object, ...]) -> bool:
    """Whether something changes if an option with this value is left out."""
    if isinstance(value, dict):
        if "enabled" in value and value["enabled"] in _NOTHING:
            return False
        return any(_asks_for_something(inner, usual) for inner in value.values())
    if isinstance(value, list):
        return any(_asks_for_something(inner, usual) for inner in value)
    return value not in _NOTHING and value not in usual


def _leaves(table: Document, path: str = "") -> Iterator[tuple[str, Document, str]]:
    """Each option that is no table: its key, the table in which it stands, and its name there."""
    for name, value in table.items():
        key = f"{path}{name}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{key}.")
        elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    yield from _leaves(item, f"{key}[{index}].")
        else:
            yield key, table, name


def _remove(tree: Document, key: str) -> bool:
    """Remove an option; False if it is not there, or names a namespace."""
    table: Any = tree
    *sections, name = re.findall(r"\[\d+\]|[^.\[\]]+", key)
    for section in sections:
        try:
            table = table[int(section[1:-1]) if section.startswith("[") else section]
        except (KeyError, IndexError, TypeError):
            return False
    if name.startswith("["):
        return False
    if name == "name" and sections and sections[-1].startswith("["):
        return False
    if not isinstance(table, dict) or name not in table:
        return False
    del table[name]
    return True
