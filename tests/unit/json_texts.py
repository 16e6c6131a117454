"""JSON texts as a client may write them, not as an encoder does, and texts that are no JSON."""

from __future__ import annotations

import json

from hypothesis import strategies as st

_SPACE = st.sampled_from(["", "", "", " ", "\t", "\r", "  \t"])
_NUMBER = st.from_regex(
    r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,5})?", fullmatch=True
).filter(str.isascii)
_CHARACTERS = st.text(
    st.characters(min_codepoint=0x20, exclude_characters='"\\', exclude_categories=["Cs"]),
    max_size=6,
)
_ESCAPES = st.sampled_from(
    [r"\n", r"\"", r"\\", r"\/", r"\u0000", r"\u000a", r"\u00E9", r"\u2028", "\u2028", "\x7f",
     r"\ud83d", r"\uDE00", r"\ud83d\ude00", r"\ud83d\ud83d\ude00", r"\ude00\ude00", r"\\ud83d",
     r"\\\ud83d", "data", r"\"data\":", "}}", "[[", "😀"],
)  # fmt: skip
_STRING = st.lists(_CHARACTERS | _ESCAPES, max_size=5).map(lambda parts: f'"{"".join(parts)}"')
_KEY = st.sampled_from(['"data"', '"a"', '"a"', '"id"', '"publish"']) | _STRING


def _array(parts: list[tuple[str, str]]) -> str:
    return "[" + ",".join(f"{space}{value}{space}" for space, value in parts) + "]"


def _object(parts: list[tuple[str, str, str]]) -> str:
    return (
        "{" + ",".join(f"{space}{key}{space}:{value}{space}" for space, key, value in parts) + "}"
    )


#: Without newlines, which can come from a server only.
TEXTS = st.recursive(
    st.sampled_from(["null", "true", "false"]) | _NUMBER | _STRING,
    lambda inner: (
        st.lists(st.tuples(_SPACE, inner), max_size=4).map(_array)
        | st.lists(st.tuples(_SPACE, _KEY, inner), max_size=4).map(_object)
    ),
    max_leaves=12,
).map(str.encode)

_DAMAGE = st.sampled_from(
    [b"", b"\0", b"\xff", b"\xed\xa0\x80", b"\\", b'"', b"\\u12", b"\\ud83d", b"\\ud8zz", b",", b"}",
     b"]", b"\n", b"\x1f", b"0", b"-", b".", b"e", b"NaN", b"x", b"\xef\xbb\xbf", b"\\x", b":"]
)  # fmt: skip
DAMAGED = st.tuples(TEXTS, st.integers(0, 10_000), st.integers(0, 3), _DAMAGE).map(
    lambda parts: (
        parts[0][: (at := parts[1] % (len(parts[0]) + 1))] + parts[3] + parts[0][at + parts[2] :]
    )
)


def is_json(text: bytes) -> bool:
    """What the standard library says, which keeps numbers as text and accepts lone surrogates."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text.decode(), parse_constant=refuse, parse_int=str, parse_float=str)
    except ValueError:
        return False
    return True
