"""Bytes as JSON text, and back."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster import data_url


@given(st.binary(max_size=60) | st.text(max_size=20).map(lambda text: json.dumps(text).encode()))
@example(b'{"a":1}\n')
@example(b" 1")
@example(b"1\n")
@example(b'"data:;base64,AAEC"')
@example(b'"data:;base64,')
@example(b"\xff")
@example(b"[" * 2000)
@example(b"{")
def test_bytes_come_back_as_they_were(data: bytes):
    text = data_url.text_of(data)
    assert data_url.bytes_of(text) == data
    assert b"\n" not in text
    if data:
        json.loads(text)


@pytest.mark.parametrize("data", [b'{"a": 1.50}', b"null", b'"\xc3\xa9"', b"5"])
def test_json_stays_as_it_is(data: bytes):
    assert data_url.text_of(data) == data


def test_other_bytes_are_a_data_url():
    assert json.loads(data_url.text_of(b"\0\1\2")) == "data:;base64,AAEC"


@pytest.mark.parametrize(
    "text", [b'"data:;base64,***"', b'"data:;base64,A"', b'"data:text/plain,A"']
)
def test_what_is_no_data_url_of_ours_stays_text(text: bytes):
    assert data_url.bytes_of(text) == text


def test_base64_of_a_backend_may_be_any_bytes():
    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    assert data_url.of_base64(encoded(b'{"a":\n1}')) == b'{"a":1}'
    assert data_url.of_base64(encoded(b"\0\1\2")) == b'"data:;base64,AAEC"'
    # A text that looks like one of ours arrives as this text.
    alike = b'"data:;base64,AAEC"'
    assert data_url.bytes_of(data_url.of_base64(encoded(alike))) == alike
    with pytest.raises(ValueError, match="Incorrect padding"):
        data_url.of_base64("MQ")
