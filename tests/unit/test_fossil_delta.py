"""Deltas: the published decoder makes the target of the base, whatever both are, and the work is bounded."""

from __future__ import annotations

import time

import pytest
from centrifuge.fossil import apply_delta
from hypothesis import given
from hypothesis import strategies as st

from cluster.fossil_delta import MAXIMUM_BYTES, MAXIMUM_LOOKUPS, checksum, delta

TEXTS = st.lists(
    st.sampled_from(["0123456789abcdefghij", "é", "😀", "\n", ",", "ab" * 20, "x"])
).map(lambda parts: "".join(parts).encode())


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_the_published_decoder_makes_the_target_of_the_base(
    first: bytes, second: bytes, third: bytes, other: bytes
):
    base, target = first + second + third, third + first + other + second + third
    made = delta(base, target)
    if made is not None:
        made.decode()
        assert len(made) < len(target)
        assert bytes(apply_delta(base, made)) == target


@given(st.text(), st.text())
def test_any_two_texts_have_a_right_delta_or_none(one: str, two: str):
    base, target = one.encode(), two.encode()
    made = delta(base, target)
    assert made is None or bytes(apply_delta(base, made)) == target


def test_a_small_change_of_a_long_text_makes_a_short_delta():
    base = (
        b'{"rows":[' + b",".join(b'{"id":%d,"price":%d}' % (n, n * 7) for n in range(500)) + b"]}"
    )
    target = base.replace(b'"id":250,', b'"id":9999,').replace(b'"id":400,', b'"id":1,')
    made = delta(base, target)
    assert made is not None
    assert len(made) < 60
    assert bytes(apply_delta(base, made)) == target


@pytest.mark.parametrize(
    ("base", "target"),
    [
        (b"", b"text"),
        (b"text", b""),
        (b"one", b"two"),
        (b"x" * (MAXIMUM_BYTES + 1), b"x" * MAXIMUM_BYTES),
        (b"x" * MAXIMUM_BYTES, b"x" * (MAXIMUM_BYTES + 1)),
        (b"a" * 1000, bytes(range(32, 127)) * (MAXIMUM_LOOKUPS // 50)),
    ],
    ids=["no base", "nothing", "too short", "a long base", "a long target", "too different"],
)
def test_there_is_no_delta_where_it_does_not_pay(base: bytes, target: bytes):
    assert delta(base, target) is None


def test_the_checksum_is_that_of_fossil():
    assert [checksum(text) for text in (b"", b"a", b"abcd", b"abcde", b"\xff" * 8)] == [
        0, 0x61000000, 0x61626364, 0xC6626364, 0xFFFFFFFE,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "pair",
    [
        (b"a" * MAXIMUM_BYTES, b"ab" * (MAXIMUM_BYTES // 2)),
        ((b"a" * 15 + b"b") * (MAXIMUM_BYTES // 16), (b"b" + b"a" * 15) * (MAXIMUM_BYTES // 16)),
        (b"a" * MAXIMUM_BYTES, (b"a" * 16 + b"b") * (MAXIMUM_BYTES // 17)),
        (
            b"x".join(b"%015d" % n for n in range(4096)),
            b"y".join(b"%015d" % n for n in range(4096)),
        ),
    ],
    ids=["no block", "shifted", "many copies", "all blocks"],
)
def test_the_hardest_texts_take_little_time(pair: tuple[bytes, bytes]):
    """It is 20 ms of a slow CPU; a quadratic encoder would need seconds."""
    since = time.process_time()
    made = delta(*pair)
    assert time.process_time() - since < 1.0
    assert made is None or bytes(apply_delta(pair[0], made)) == pair[1]
