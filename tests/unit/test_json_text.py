"""JSON text is checked and kept: what is accepted, what is refused, and how much work a text can cost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TypedDict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.json_text import (
    MAXIMUM_NESTING,
    JsonDecoder,
    JsonTextInvalid,
    checked,
    is_too_deep,
    of,
)
from tests.unit.json_texts import DAMAGED, TEXTS, is_json


class Named(TypedDict, total=False):
    name: str
    data: msgspec.Raw


STRICT: JsonDecoder[Named] = JsonDecoder(Named)
REPLACING: JsonDecoder[Named] = JsonDecoder(Named, replaces_surrogates=True)


def accepts(text: bytes) -> bool:
    try:
        checked(text)
    except JsonTextInvalid:
        return False
    return True


@given(TEXTS)
@settings(max_examples=500)
def test_any_json_text_is_accepted_and_kept(text: bytes):
    assert is_json(text)
    assert checked(text) == text
    decoded = STRICT.decode(b'{"name":"n","data":%b,"more":%b}' % (text, text))
    assert bytes(decoded["data"]) == text


@given(DAMAGED | st.binary(max_size=20))
@settings(max_examples=1000)
def test_what_is_no_json_is_refused_and_nothing_else(text: bytes):
    assert accepts(text) is is_json(text)


@pytest.mark.parametrize(
    "text",
    [b'"cut \\ud83d"', b"18446744073709551616", b"1.10", b'{"a":1,"a":2}', b"1e999", b"-0", b"1E+2",
     b"9" * 5000, b'"\\u0000"', b'"\\/"', b'["\\uD83D\\uDE00"]', b'"\\\\ud83d"', b'"\xe2\x80\xa8"'],
)  # fmt: skip
def test_what_an_encoder_would_write_differently_is_kept(text: bytes):
    assert checked(text) == text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b'{\n  "a": [\n    1\n  ]\n}\n', b'{  "a": [    1  ]}'),
        (b" \n[1,\r\n2]\n ", b"[1,\r2]"),
        (b'"\\n"', b'"\\n"'),
    ],
)
def test_only_newlines_and_the_whitespace_around_a_text_go(text: bytes, wanted: bytes):
    assert checked(text) == wanted


def test_a_string_gets_a_replacement_for_a_lone_surrogate_or_is_refused():
    text = b'{"name":"a\\ud83d\\\\ud83d\\ud83d\\ude00","data":["\\ude00\\\\"]}'
    decoded = REPLACING.decode(text)
    assert decoded["name"] == "a\ufffd\\ud83d\U0001f600"
    assert bytes(decoded["data"]) == b'["\\ude00\\\\"]'
    with pytest.raises(JsonTextInvalid, match="lone surrogate"):
        STRICT.decode(text)


@pytest.mark.parametrize("text", [b'{"name":1}', b"[]", b'{"name":"\\ud83d"', b'{"name":"\xff"}'])
def test_another_shape_is_refused(text: bytes):
    with pytest.raises(JsonTextInvalid):
        REPLACING.decode(text)


@pytest.mark.parametrize(
    ("opened", "closed"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"]}":', b"}]")]
)
def test_a_text_is_nested_512_levels_deep_at_most(opened: bytes, closed: bytes):
    levels = MAXIMUM_NESTING // len(closed)
    assert checked(opened * levels + b"1" + closed * levels)
    for more in (levels + 1, 2 * levels, 10 * levels, 30_000):
        with pytest.raises(JsonTextInvalid):
            checked(opened * more + b"1" + closed * more)


@given(st.recursive(TEXTS, lambda inner: st.lists(inner, max_size=3).map(
    lambda parts: b"[" + b",".join(parts) + b"]")), st.integers(0, 6))  # fmt: skip
@settings(max_examples=300)
def test_the_depth_of_any_text_is_found(text: bytes, levels: int):
    def depth(value: object) -> int:
        inner = value.values() if isinstance(value, dict) else value
        if not isinstance(inner, str) and isinstance(inner, Iterable):
            return 1 + max(map(depth, inner), default=0)
        return 0

    # Members that repeat count too.
    document = json.loads(text, object_pairs_hook=lambda pairs: [value for _, value in pairs])
    assert is_too_deep(text, levels) is (depth(document) > levels)


def test_many_brackets_are_not_deep():
    assert not is_too_deep(b"[" + b"[],{}," * 2000 + b"1]")
    assert not is_too_deep(b'"' + b"[" * 5000 + b'"')
    assert not is_too_deep(b'["\\"' + b"[" * 5000 + b'\\\\"]')
    assert is_too_deep(b'["]]]]]",' + b"[" * 600 + b"]" * 600 + b"]")


def test_a_value_of_an_application_is_encoded_and_its_bytes_are_text():
    assert of({"a": [1, "é"]}) == '{"a":[1,"é"]}'.encode()
    assert of(b' {"a": 1.10}\n') == b'{"a": 1.10}'
    with pytest.raises(JsonTextInvalid):
        of(b"{")
