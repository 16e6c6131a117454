"""Patterns for names of channels: they match what Python's `re` matches, and in a bounded number of steps."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config import channel_regex
from cluster.config.channel_regex import MOST_REMEMBERED, ChannelRegex, regex_fault

ATOMS = st.sampled_from(
    [
        "a",
        "b",
        "ab",
        ".",
        "[a-c]",
        "[^a]",
        r"\d",
        r"\W",
        r"\.",
        "^",
        "(?i:A)",
        "(?:a|b)",
        "(?:a|ab)",
        "[-b]",
    ]
)
COUNTS = st.sampled_from(["", "*", "+", "?", "{2}", "{1,3}", "{2,}", "*?"])
UNITS = st.tuples(ATOMS, COUNTS).map("".join)
#: Not `$`: Python's also matches before a newline at the end, Go's does not, and neither does ours.
PATTERNS = st.recursive(
    st.lists(UNITS, max_size=4).map("".join),
    lambda inner: st.tuples(inner, inner, COUNTS).map(lambda p: f"(?:{p[0]}|{p[1]}){p[2]}{p[0]}"),
    max_leaves=4,
)
NAMES = st.text("ab.cA0-\n", max_size=12)


@settings(max_examples=300, deadline=None)
@given(PATTERNS, st.booleans(), st.lists(NAMES, max_size=5))
def test_a_pattern_matches_what_python_matches(pattern: str, is_anchored: bool, names: list[str]):
    if is_anchored:
        pattern = rf"{pattern}\Z"
    try:
        expected = re.compile(pattern, re.ASCII)
    except re.error:
        assert regex_fault(pattern)
        return
    if (fault := regex_fault(pattern)) and "shorter" in fault:
        return
    matcher = ChannelRegex(pattern)
    for name in names:
        assert matcher.search(name) == bool(expected.search(name)), (pattern, name)


def test_the_end_is_the_end_and_not_before_a_newline():
    assert ChannelRegex("^[a-z]+$").search("news")
    assert not ChannelRegex("^[a-z]+$").search("news\n")


def steps_of(pattern: str, name: str) -> int:
    """How many states were looked at while a name was matched."""
    matcher = ChannelRegex(pattern)
    looked = 0
    closure = matcher._closure

    def counted(reached: Iterable[int], *, is_begin: bool, is_end: bool) -> frozenset[int]:
        nonlocal looked
        states = closure(reached, is_begin=is_begin, is_end=is_end)
        looked += len(states)
        return states

    matcher._closure = counted  # type: ignore[method-assign]
    assert not matcher.search(name)
    return looked


@pytest.mark.parametrize(
    "pattern", ["^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "^a*a*a*a*a*a*b$", r"^(\w+\s?)*$"]
)
def test_a_pattern_that_keeps_python_busy_for_hours_takes_few_steps(pattern: str):
    name = "a" * 254 + "!"
    # Each step is new once at most: 255 characters, and what is possible after them.
    assert steps_of(pattern, name) < 255 * 2 * len(ChannelRegex(pattern)._states)


def test_what_is_remembered_is_bounded():
    matcher = ChannelRegex("(a|b)*a(a|b){12}$")
    for number in range(2000):
        matcher.search(f"{number:020b}".replace("0", "a").replace("1", "b"))
        assert len(matcher._remembered) <= MOST_REMEMBERED
    assert matcher.search("a" + "b" * 12)
    assert not matcher.search("b" * 13)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(", "can be parsed"),
        ("a{3,2}", "can be parsed"),
        (r"\z", "can be parsed"),
        (r"(a)\1", "without back references"),
        ("(?=a)", "without back references"),
        (r"\ba", "word boundaries"),
        ("a++", "possessive"),
        ("(?>a)b", "atomic"),
        ("(?m)^a", "no flags"),
        ("[[:alpha:]]", "ranges such as a-z"),
        ("a{501}", "lower counts"),
        ("((a{9}){9}){9}", "lower counts"),
        ("(" * 5000 + ")" * 5000, "parsed"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_sentence(pattern: str, said: str):
    assert said in regex_fault(pattern)


def test_an_empty_pattern_matches_every_name():
    assert ChannelRegex("").search("any")
    assert channel_regex.regex_fault("") == ""
