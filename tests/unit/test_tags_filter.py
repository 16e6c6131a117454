"""Filters on tags: what each comparison means, and which filters are refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from cluster.errors import ClientError
from cluster.tags_filter import (
    MAXIMUM_BYTES,
    MAXIMUM_DEPTH,
    MAXIMUM_NODES,
    TagsFilter,
    compiled,
    tags_of,
)

Json = dict[str, Any]


def made(node: Any) -> TagsFilter:
    return compiled(orjson.dumps(node))


def leaf(cmp: str, val: str = "", key: str = "k", vals: list[str] | None = None) -> Json:
    return {"key": key, "cmp": cmp, "val": val} | ({"vals": vals} if vals else {})


@pytest.mark.parametrize(
    ("node", "passing", "failing"),
    [
        (leaf("eq", "a"), [{"k": "a"}], [{"k": "b"}, {"k": "A"}, {}, {"other": "a"}]),
        (leaf("neq", "a"), [{"k": "b"}, {}], [{"k": "a"}]),
        (leaf("in", vals=["a", "b"]), [{"k": "a"}, {"k": "b"}], [{"k": "c"}, {}]),
        (leaf("nin", vals=["a", "b"]), [{"k": "c"}, {}], [{"k": "a"}]),
        (leaf("in", vals=["", "b"]), [{}, {"k": ""}], [{"k": "a"}]),
        (leaf("ex"), [{"k": ""}, {"k": "a"}], [{}]),
        (leaf("nex"), [{}], [{"k": ""}]),
        (leaf("sw", "ab"), [{"k": "abc"}], [{"k": "cab"}, {}]),
        (leaf("ew", "bc"), [{"k": "abc"}], [{"k": "bcd"}, {}]),
        (leaf("ct", "b"), [{"k": "abc"}], [{"k": "ac"}, {}]),
        (leaf("gt", "9.5"), [{"k": "10"}, {"k": "9.50001"}], [{"k": "9.5"}, {"k": "-10"}, {}]),
        (leaf("gte", "9.5"), [{"k": "9.50"}, {"k": "+10"}], [{"k": "9.4"}, {}]),
        (leaf("lt", "0"), [{"k": "-0.1"}], [{"k": "0"}, {"k": "1"}, {}]),
        (leaf("lte", "0"), [{"k": "0.0"}, {"k": "-1"}], [{"k": "1"}, {}]),
        (
            leaf("gt", "1"),
            [{"k": "99999999999999999999.1"}],
            [
                {"k": text}
                for text in ("x", "", " 2", "2 ", "1e9", "0x9", "NaN", "Infinity", "2_0", "٣")
            ]
            + [{"k": "9" * 65}],
        ),
        (leaf("lt", "many"), [], [{"k": "1"}]),
        (
            {"op": "and", "nodes": [leaf("eq", "a"), leaf("ex", key="x")]},
            [{"k": "a", "x": "1"}],
            [{"k": "a"}, {"x": "1"}],
        ),
        (
            {"op": "or", "nodes": [leaf("eq", "a"), leaf("ex", key="x")]},
            [{"k": "a"}, {"x": "1"}],
            [{"k": "b"}, {}],
        ),
        ({"op": "not", "nodes": [leaf("eq", "a")]}, [{"k": "b"}, {}], [{"k": "a"}]),
    ],
    ids=lambda value: orjson.dumps(value).decode() if isinstance(value, dict) else "",
)
def test_a_filter_lets_pass_what_its_comparison_says(
    node: Json, passing: list[dict[str, str]], failing: list[dict[str, str]]
):
    passes = made(node).passes
    assert [tags for tags in passing if not passes(tags)] == []
    assert [tags for tags in failing if passes(tags)] == []


def nested(levels: int) -> Json:
    node = leaf("ex")
    for _ in range(levels - 1):
        node = {"op": "not", "nodes": [node]}
    return node


def wide(nodes: int) -> Json:
    return {"op": "or", "nodes": [leaf("ex")] * (nodes - 1)}


@pytest.mark.parametrize(
    "node",
    [
        [],
        "text",
        1,
        {},
        {"key": 1, "cmp": "ex"},
        {"op": "xor", "nodes": [leaf("ex")]},
        {"op": "and"},
        {"op": "or", "nodes": []},
        {"op": "not", "nodes": []},
        {"op": "not", "nodes": [leaf("ex"), leaf("ex")]},
        leaf("like", "a"),
        leaf("eq"),
        leaf("eq", "a", key=""),
        leaf("eq", "a", vals=["b"]),
        leaf("in"),
        leaf("in", "a", vals=["b"]),
        leaf("in", key="", vals=["b"]),
        leaf("ex", "a"),
        leaf("ex", vals=["a"]),
        {"op": "and", "nodes": [leaf("ex"), leaf("like", "a")]},
        nested(MAXIMUM_DEPTH + 1),
        wide(MAXIMUM_NODES + 1),
        leaf("eq", "x" * MAXIMUM_BYTES),
    ],
    ids=lambda node: orjson.dumps(node).decode()[:60],
)
def test_a_filter_that_is_malformed_or_too_large_is_refused_with_107(node: Any):
    with pytest.raises(ClientError) as refused:
        made(node)
    assert refused.value.code == 107


def test_a_filter_nested_beyond_every_bound_is_refused_with_107():
    text = b'{"op":"not","nodes":[' * 380
    with pytest.raises(ClientError) as refused:
        compiled(text + b"]}" * 380)
    assert refused.value.code == 107


@pytest.mark.parametrize("node", [nested(MAXIMUM_DEPTH), wide(MAXIMUM_NODES)])
def test_a_filter_at_a_limit_is_accepted(node: Json):
    assert isinstance(made(node).passes({"k": "a"}), bool)


def test_equal_filters_have_equal_keys():
    one = compiled(b'{"key": "k", "cmp":"eq","val":"a","vals":[],"unknown":1}')
    two = compiled(b'{"val":"a","cmp":"eq","key":"\\u006b"}')
    assert one.key == two.key != made(leaf("eq", "b")).key


@pytest.mark.parametrize(
    ("body", "tags"),
    [
        (b'{"data":{"tags":{"a":"b"}}}', {}),
        (b'{"data":1,"tags":{"a":"b"}}', {"a": "b"}),
        (b'{"data":"\\ud800","tags":{"a":"b"}}', {"a": "b"}),
        (b'{"data":1,"tags":{"a":1}}', {}),
        (b'{"data":1}', {}),
    ],
)
def test_tags_are_read_from_a_publication(body: bytes, tags: dict[str, str]):
    assert tags_of(body) == tags
