"""Filters that a subscriber puts on the tags of publications: the `tf` of a subscribe.

A filter is a tree of nodes `{op, key, cmp, val, vals, nodes}`. It is compiled once, to a function that is
called for each publication; filters that mean the same have the same `key` and can share its answer.
Meaning and checks are those of Centrifuge's `internal/filter`; the limits are ours, because a client
chooses the filter and the server evaluates it for each publication.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from operator import ge, gt, le, lt
from typing import Final, NamedTuple

import msgspec

from cluster import json_text
from cluster.errors import BAD_REQUEST

#: Limits of one filter: its text, its nodes, and nodes within each other.
MAXIMUM_BYTES: Final = 8192
MAXIMUM_NODES: Final = 64
MAXIMUM_DEPTH: Final = 16

#: Longer text is no number, so that comparing a tag with one takes little time.
_NUMBER: Final = re.compile(r"(?=.{1,64}\Z)[+-]?[0-9]+(?:\.[0-9]+)?", re.ASCII)

Tags = Mapping[str, str]
Predicate = Callable[[Tags], bool]


class TagsFilter(NamedTuple):
    """A compiled filter.

    Attributes:
        key: equal for equal filters.
        passes: whether a publication with these tags passes.
    """

    key: bytes
    passes: Predicate


class _Node(msgspec.Struct, omit_defaults=True, gc=False):
    op: str = ""
    key: str = ""
    cmp: str = ""
    val: str = ""
    vals: list[str] = []
    nodes: list[_Node] = []


_NODE: Final[json_text.JsonDecoder[_Node]] = json_text.JsonDecoder(_Node)


def compiled(text: bytes) -> TagsFilter:
    """Compile a filter from its JSON text.

    Raises:
        ClientError: 107 for a filter that is malformed or exceeds a limit.
    """
    # A node within a node is an object within an array.
    if len(text) > MAXIMUM_BYTES or json_text.is_too_deep(text, 2 * MAXIMUM_DEPTH):
        raise BAD_REQUEST.fresh()
    try:
        node = _NODE.decode(text)
    except json_text.JsonTextInvalid:
        raise BAD_REQUEST.fresh() from None
    if _count(node) > MAXIMUM_NODES:
        raise BAD_REQUEST.fresh()
    return TagsFilter(msgspec.json.encode(node), _predicate(node))


def _count(node: _Node) -> int:
    return 1 + sum(map(_count, node.nodes))


def _predicate(node: _Node) -> Predicate:
    if node.op == "":
        return _leaf(node)
    parts = [_predicate(child) for child in node.nodes]
    if node.op == "and" and parts:
        return _all(parts)
    if node.op == "or" and parts:
        return _any(parts)
    if node.op == "not" and len(parts) == 1:
        [part] = parts
        return lambda tags: not part(tags)
    raise BAD_REQUEST.fresh()


def _all(parts: list[Predicate]) -> Predicate:
    def passes(tags: Tags) -> bool:
        for part in parts:  # noqa: SIM110 - a generator would cost more than most parts
            if not part(tags):
                return False
        return True

    return passes


def _any(parts: list[Predicate]) -> Predicate:
    def passes(tags: Tags) -> bool:
        for part in parts:  # noqa: SIM110 - as above
            if part(tags):
                return True
        return False

    return passes


def _leaf(node: _Node) -> Predicate:
    key, val, vals = node.key, node.val, node.vals
    if node.cmp in _EXISTENCE:
        is_fit = not (val or vals)
    elif node.cmp in _MEMBERSHIP:
        is_fit = bool(key and vals and not val)
    else:
        is_fit = node.cmp in _COMPARISONS and bool(key and val and not vals)
    if not is_fit:
        raise BAD_REQUEST.fresh()
    if node.cmp in _EXISTENCE:
        wanted = node.cmp == "ex"
        return lambda tags: (key in tags) is wanted
    if node.cmp in _MEMBERSHIP:
        members, is_member = frozenset(vals), node.cmp == "in"
        # A tag that is missing counts as "", as in Centrifuge.
        return lambda tags: (tags.get(key, "") in members) is is_member
    return _COMPARISONS[node.cmp](key, val)


_EXISTENCE: Final = ("ex", "nex")
_MEMBERSHIP: Final = ("in", "nin")


def _number(text: str | None) -> Decimal | None:
    return Decimal(text) if text is not None and _NUMBER.fullmatch(text) else None


def _numeric(holds: Callable[[Decimal, Decimal], bool]) -> Callable[[str, str], Predicate]:
    def comparison(key: str, val: str) -> Predicate:
        limit = _number(val)
        if limit is None:
            return lambda tags: False

        def passes(tags: Tags) -> bool:
            number = _number(tags.get(key))
            return number is not None and holds(number, limit)

        return passes

    return comparison


def _starts(key: str, val: str) -> Predicate:
    return lambda tags: key in tags and tags[key].startswith(val)


def _ends(key: str, val: str) -> Predicate:
    return lambda tags: key in tags and tags[key].endswith(val)


def _contains(key: str, val: str) -> Predicate:
    return lambda tags: key in tags and val in tags[key]


_COMPARISONS: Final[dict[str, Callable[[str, str], Predicate]]] = {
    "eq": lambda key, val: lambda tags: tags.get(key) == val,
    "neq": lambda key, val: lambda tags: tags.get(key) != val,
    "sw": _starts,
    "ew": _ends,
    "ct": _contains,
    "gt": _numeric(gt),
    "gte": _numeric(ge),
    "lt": _numeric(lt),
    "lte": _numeric(le),
}


class _Tagged(msgspec.Struct, gc=False):
    tags: dict[str, str] | None = None


_TAGGED: Final[json_text.JsonDecoder[_Tagged]] = json_text.JsonDecoder(
    _Tagged, replaces_surrogates=True
)
_NO_TAGS: Final[Tags] = {}


def tags_of(body: bytes) -> Tags:
    """The tags of a publication, from its JSON object."""
    if b'"tags"' not in body:
        return _NO_TAGS
    try:
        return _TAGGED.decode(body).tags or _NO_TAGS
    except json_text.JsonTextInvalid:
        # Another version of the server wrote it.
        return _NO_TAGS
