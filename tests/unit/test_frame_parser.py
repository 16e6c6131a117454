"""The frame parser: what it finds, whatever the pieces, and how early it finds a fault."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Disconnect
from cluster.websocket.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FRAMES_PER_TURN,
    PING,
    PONG,
    TEXT,
    FrameParser,
)
from tests.harness.wire import frame

LIMIT = 300
Found = tuple[int, bytes]


class Recorder:
    """Keeps what a parser finds; a fault is kept as its close code without data."""

    def __init__(self) -> None:
        self.found: list[Found] = []

    def message(self, opcode: int, data: bytes) -> None:
        assert type(data) is bytes
        self.found.append((opcode, data))

    def frame_fault(self, why: Disconnect) -> None:
        self.found.append((why.code, b""))


def parsed(*pieces: bytes, limit: int = LIMIT) -> list[Found]:
    recorder = Recorder()
    parser = FrameParser(recorder, limit)
    for piece in pieces:
        while piece:
            piece = parser.feed(piece)
    return recorder.found


def closing(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


def test_only_so_many_frames_are_parsed_in_one_turn():
    recorder = Recorder()
    parser = FrameParser(recorder, LIMIT)
    count = 2 * FRAMES_PER_TURN + 1
    left = parser.feed(frame(PONG, b"") * count + frame(TEXT, b"cut")[:-1])
    assert len(recorder.found) == FRAMES_PER_TURN
    left = parser.feed(left)
    assert len(recorder.found) == 2 * FRAMES_PER_TURN
    assert parser.feed(left) == b""
    assert parser.feed(b"t") == b""
    assert len(recorder.found) == count + 1


@pytest.mark.parametrize("size", [0, 1, 119, 125, 126, 127, 133, LIMIT, LIMIT + 1])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CONTINUATION, PING, CLOSE])
def test_a_whole_text_message_is_found_at_once_and_nothing_else_is(size: int, opcode: int):
    parser = FrameParser(Recorder(), LIMIT)
    text = bytes(range(97, 122)) * 14
    data = frame(opcode, text[:size])
    assert parser.whole_text(data) == (text[:size] if opcode == TEXT and size <= LIMIT else None)
    for other in (data[:-1], data + b"x", data + data, frame(opcode, text[:size], fin=False)):
        assert parser.whole_text(other) is None
    unmasked = bytes([data[0], data[1] & 0x7F]) + data[2:]
    assert parser.whole_text(unmasked) is None


def test_the_largest_length_is_not_taken_for_a_short_one():
    # Its two first bytes, and a read of 6 + 127 bytes.
    data = b"\x81\xff" + (200).to_bytes(8, "big") + bytes(123)
    parser = FrameParser(Recorder(), LIMIT)
    assert len(data) == 133
    assert parser.whole_text(data) is None


@pytest.mark.parametrize(
    "before", [frame(TEXT, b"cut")[:-1], frame(TEXT, b"part", fin=False), closing(1000)]
)
def test_a_whole_message_is_not_found_behind_what_is_incomplete_or_closed(before: bytes):
    parser = FrameParser(Recorder(), LIMIT)
    parser.feed(before)
    assert parser.whole_text(frame(TEXT, b"whole")) is None


def masked(opcode: int, payload: bytes, mask: bytes, *, fin: bool = True) -> bytes:
    plain = frame(opcode, payload, fin=fin)
    head = plain[: len(plain) - len(payload) - 4]
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


# --- headers (RFC 6455, section 5.2) ---------------------------------------------------------


@pytest.mark.parametrize(
    "start",
    [
        b"\x81\x02", b"\x81\x7e", b"\x89\x00", b"\x88\x00", b"\x00\x01",
        b"\xc1\x80", b"\xa1\x80", b"\x91\x80", b"\xc9\x80", b"\xc8\x80",
        *(bytes([0x80 | opcode, 0x80]) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        b"\x09\x80", b"\x0a\x80", b"\x08\x80", b"\x89\xfe", b"\x8a\xff", b"\x88\xfe",
        b"\x80\x80", b"\x00\x80",
        frame(TEXT, b"", fin=False) + b"\x81\x80",
        frame(TEXT, b"", fin=False) + b"\x01\x80",
        frame(BINARY, b"x", fin=False) + b"\x82\x80",
    ],
)  # fmt: skip
def test_a_forbidden_header_is_a_fault_before_its_payload_comes(start: bytes):
    assert parsed(start) == [(1002, b"")]
    assert parsed(*(bytes([one]) for one in start)) == [(1002, b"")]


def test_each_frame_must_be_masked_not_only_the_first():
    assert parsed(frame(TEXT, b"{}") + b"\x81\x02{}") == [(TEXT, b"{}"), (1002, b"")]
    began = frame(TEXT, b"a", fin=False)
    assert parsed(began, b"\x80\x01b") == [(1002, b"")]


def test_nothing_is_parsed_after_a_fault():
    assert parsed(b"\x81\x02{}" + frame(TEXT, b"x"), frame(TEXT, b"y")) == [(1002, b"")]


# --- sizes -----------------------------------------------------------------------------------


def test_a_message_may_have_just_as_many_bytes_as_the_limit():
    assert parsed(frame(TEXT, b"x" * LIMIT)) == [(TEXT, b"x" * LIMIT)]
    assert parsed(frame(TEXT, b"x" * LIMIT)[:-1]) == []
    assert parsed(frame(BINARY, b"x" * LIMIT)) == [(BINARY, b"x" * LIMIT)]
    pieces = frame(TEXT, b"x" * (LIMIT - 1), fin=False), frame(CONTINUATION, b"y")
    assert parsed(*pieces) == [(TEXT, b"x" * (LIMIT - 1) + b"y")]


@pytest.mark.parametrize("length", [LIMIT + 1, 65535, 65536, 2**31, 2**63 - 1, 2**64 - 1])
def test_a_message_over_the_limit_is_a_fault_before_its_payload_comes(length: int):
    narrow = b"\xfe" + struct.pack("!H", length) if length < 65536 else b""
    for announced in (narrow, b"\xff" + struct.pack("!Q", length)):
        if announced:
            for opcode in (TEXT, BINARY):
                assert parsed(bytes([0x80 | opcode]) + announced) == [(1009, b"")]
                assert parsed(bytes([opcode]) + announced) == [(1009, b"")]


def test_fragments_over_the_limit_are_a_fault():
    assert parsed(frame(TEXT, b"x" * LIMIT, fin=False), frame(0, b"y")) == [(1009, b"")]
    assert parsed(frame(TEXT, b"", fin=False), b"\x80\xfe\x01\x2d") == [(1009, b"")]


def test_a_length_may_be_written_longer_than_needed():
    # RFC 6455, section 5.2, asks it of senders; no receiver is told to refuse it.
    assert parsed(b"\x81\xfe\0\x02\0\0\0\0{}") == [(TEXT, b"{}")]
    assert parsed(b"\x81\xff" + bytes(7) + b"\x02\0\0\0\0{}") == [(TEXT, b"{}")]


# --- messages and control frames -------------------------------------------------------------


def test_control_frames_may_come_between_fragments():
    pieces = [
        frame(TEXT, b"a", fin=False), frame(PING, b"1"), frame(CONTINUATION, b"", fin=False),
        frame(PONG, b"2"), frame(CONTINUATION, b"b"), frame(TEXT, b"c"),
    ]  # fmt: skip
    assert parsed(*pieces) == [(PING, b"1"), (PONG, b"2"), (TEXT, b"ab"), (TEXT, b"c")]


def test_an_empty_message_may_come_in_empty_fragments():
    pieces = frame(TEXT, b"", fin=False), frame(0, b"", fin=False), frame(0, b"")
    assert parsed(*pieces) == [(TEXT, b"")]


def test_nothing_is_parsed_after_a_close_frame():
    assert parsed(closing(1000) + frame(TEXT, b"x") + b"\xff\xff") == [(CLOSE, b"\x03\xe8")]


VALID_CODES = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}


def test_close_codes_are_those_that_a_peer_may_send():
    for code in range(65536):
        wanted = (CLOSE, struct.pack("!H", code)) if code in VALID_CODES else (1002, b"")
        assert parsed(closing(code)) == [wanted], code


def test_a_close_frame_may_be_empty_and_has_a_reason_in_utf8_only():
    assert parsed(frame(CLOSE, b"")) == [(CLOSE, b"")]
    assert parsed(frame(CLOSE, b"\x03")) == [(1002, b"")]
    assert parsed(closing(1000, "grüße".encode())) == [(CLOSE, b"\x03\xe8" + "grüße".encode())]
    assert parsed(closing(1000, b"x" * 123))[0][0] == CLOSE
    assert parsed(closing(1000, b"x" * 124)) == [(1002, b"")]
    assert parsed(closing(1000, b"\xed\xa0\x80")) == [(1007, b"")]
    assert parsed(closing(1000, b"cut \xf0\x9f")) == [(1007, b"")]


# --- text ------------------------------------------------------------------------------------


def test_invalid_text_in_pieces_is_a_fault_as_soon_as_it_is_invalid():
    assert parsed(frame(TEXT, b"good \xff", fin=False)) == [(1007, b"")]
    assert parsed(frame(TEXT, b"\xf4", fin=False), frame(0, b"\x90", fin=False)) == [(1007, b"")]
    one = frame(TEXT, b"\xce\xba\xf4\x90" + b"x" * 100)
    assert parsed(one[:9]) == []
    assert parsed(one[:10]) == [(1007, b"")]


def test_a_cut_character_at_the_end_of_a_message_is_a_fault():
    assert parsed(frame(TEXT, b"\xf0\x9f", fin=False), frame(0, b"")) == [(1007, b"")]
    assert parsed(frame(TEXT, b"\xf0\x9f", fin=False), frame(0, b"\x98\x80"))[0][0] == TEXT


def test_binary_is_no_text():
    assert parsed(frame(BINARY, b"\xff", fin=False), frame(0, b"\xfe")) == [(BINARY, b"\xff\xfe")]


# --- pieces ----------------------------------------------------------------------------------

MASKS = st.binary(min_size=4, max_size=4)
CONTROLS = st.tuples(
    st.just("control"), st.sampled_from([PING, PONG]), st.binary(max_size=125), MASKS
)
TEXTS = st.text(max_size=60).map(str.encode)
MESSAGES = st.tuples(
    st.just("message"),
    st.one_of(st.tuples(st.just(TEXT), TEXTS), st.tuples(st.just(BINARY), st.binary(max_size=200))),
    st.lists(st.integers(0, 200), max_size=3),
    MASKS,
)


@given(st.lists(st.one_of(CONTROLS, MESSAGES), max_size=6), st.lists(st.integers(0, 2000)))
def test_any_cuts_of_the_stream_give_the_same_messages(script, cuts):
    stream, wanted = b"", []
    for kind, what, more, mask in script:
        if kind == "control":
            stream += masked(what, more, mask)
            wanted.append((what, more))
            continue
        opcode, payload = what
        ends = [*sorted(min(end, len(payload)) for end in more), len(payload)]
        at = 0
        for index, end in enumerate(ends):
            last = index == len(ends) - 1
            stream += masked(opcode if index == 0 else 0, payload[at:end], mask, fin=last)
            at = end
        wanted.append((opcode, payload))
    at, pieces = 0, []
    for cut in [*sorted(cuts), len(stream)]:
        pieces.append(stream[at:cut])
        at = max(at, cut)
    assert parsed(*pieces) == wanted


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes_are_parsed_or_refused_and_end_with_one_fault(pieces):
    found = parsed(*pieces)
    faults = [code for code, _ in found if code >= 1000]
    assert faults in ([], [1002], [1007], [1009])
    assert not faults or found[-1] == (faults[0], b"")
