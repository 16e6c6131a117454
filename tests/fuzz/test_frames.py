"""Frames of every kind in any pieces, compared with the rules of RFC 6455 written down a second time."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import Disconnect
from cluster.websocket.frames import TEXT, FrameParser

LIMIT = 200
#: Results: messages and control frames, then at most one fault as its close code.
Results = list[tuple[int, bytes]]

FIRST = st.one_of(
    st.sampled_from([0x81, 0x01, 0x80, 0x00, 0x82, 0x02, 0x88, 0x89, 0x8A]), st.integers(0, 255)
)
PAYLOAD = st.one_of(
    st.binary(max_size=140),
    st.text(max_size=40).map(str.encode),
    st.sampled_from([999, 1000, 1003, 1004, 1006, 1007, 1014, 1015, 2999, 3000, 4999, 5000]).map(
        lambda code: struct.pack("!H", code) + b"why"
    ),
    st.sampled_from([b"\xf0\x9f", b"\x98\x80", b"\xed\xa0\x80", b"x" * LIMIT, b"x" * (LIMIT + 1)]),
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """One frame: usually well made, with any first octet; sometimes unmasked or with a false length."""
    first, payload = draw(FIRST), draw(PAYLOAD)
    mask = draw(st.binary(min_size=4, max_size=4))
    is_masked = draw(st.integers(0, 19)) > 0
    form = draw(st.sampled_from(["shortest", "shortest", "shortest", "two", "eight", "huge"]))
    top = 0x80 if is_masked else 0
    if form == "huge":
        head = bytes([first, top | 127]) + struct.pack("!Q", draw(st.integers(LIMIT, 2**64 - 1)))
    elif form == "eight":
        head = bytes([first, top | 127]) + struct.pack("!Q", len(payload))
    elif form == "two" or len(payload) > 125:
        head = bytes([first, top | 126]) + struct.pack("!H", len(payload))
    else:
        head = bytes([first, top | len(payload)])
    if not is_masked:
        return head + payload
    return head + mask + bytes(octet ^ mask[at % 4] for at, octet in enumerate(payload))


#: Every way in which a character of several octets may begin.
BEGINNINGS = {
    char.encode()[:size]
    for block in (range(0x80, 0xD800, 0x20), range(0xE000, 0x110000, 0x20))
    for char in map(chr, block)
    for size in range(1, len(char.encode()))
}


def is_cut_text(data: bytes) -> bool:
    """Whether text can still become valid: only its last character may be cut."""
    for missing in range(4):
        head, rest = data[: len(data) - missing], data[len(data) - missing :]
        try:
            head.decode()
        except UnicodeDecodeError:
            continue
        return not rest or rest in BEGINNINGS
    return False


VALID_CODES = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}


def header_fault(first: int, second: int, is_continued: bool) -> bool:
    opcode, length = first % 16, second % 128
    if first & 0x70 or second < 0x80 or 3 <= opcode <= 7 or opcode > 10:
        return True
    if opcode >= 8:
        return first < 0x80 or length > 125
    return is_continued != (opcode == 0)


def close_fault(payload: bytes) -> int:
    if not payload:
        return 0
    if len(payload) == 1 or struct.unpack("!H", payload[:2])[0] not in VALID_CODES:
        return 1002
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return 1007
    return 0


def expected(stream: bytes) -> Results:
    """What must be found in a whole stream."""
    found: Results = []
    at, opcode, message = 0, 0, b""
    while len(stream) - at >= 2:
        first, second = stream[at], stream[at + 1]
        if header_fault(first, second, bool(opcode)):
            return [*found, (1002, b"")]
        wide = {126: 2, 127: 8}.get(second % 128, 0)
        if len(stream) < at + 2 + wide:
            break
        length = int.from_bytes(stream[at + 2 : at + 2 + wide], "big") if wide else second % 128
        kind, start = first % 16, at + 2 + wide + 4
        if kind < 8 and length + len(message) > LIMIT:
            return [*found, (1009, b"")]
        mask, masked = stream[start - 4 : start], stream[start : start + length]
        payload = bytes(octet ^ mask[index % 4] for index, octet in enumerate(masked))
        is_whole = len(payload) == length and len(mask) == 4
        at = start + length
        if kind >= 8:
            if not is_whole:
                break
            if kind == 8:
                code = close_fault(payload)
                return [*found, (code, b"")] if code else [*found, (8, payload)]
            found.append((kind, payload))
            continue
        opcode, message = opcode or kind, message + payload
        is_final = first >= 0x80 and is_whole
        if opcode == TEXT and not is_valid(message, is_final=is_final):
            return [*found, (1007, b"")]
        if is_final:
            found.append((opcode, message))
            opcode, message = 0, b""
        elif not is_whole:
            break
    return found


def is_valid(data: bytes, *, is_final: bool) -> bool:
    if not is_final:
        return is_cut_text(data)
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class Recorder:
    """Keeps what is found, and decodes whole text as the protocol does."""

    def __init__(self) -> None:
        self.found: Results = []

    def message(self, opcode: int, data: bytes) -> None:
        if opcode == TEXT and not is_valid(data, is_final=True):
            self.frame_fault(Disconnect(1007, "invalid UTF-8"))
        elif not self.is_over:
            self.found.append((opcode, data))

    def frame_fault(self, why: Disconnect) -> None:
        if not self.is_over:
            self.found.append((why.code, b""))

    @property
    def is_over(self) -> bool:
        return bool(self.found) and self.found[-1][0] >= 1000


def parsed(pieces: Sequence[bytes]) -> Results:
    recorder = Recorder()
    parser = FrameParser(recorder, LIMIT)
    for piece in pieces:
        parser.feed(piece)
    return recorder.found


@settings(max_examples=400)
@given(st.lists(frames(), max_size=5), st.lists(st.integers(0, 800), max_size=12))
def test_any_frames_in_any_pieces_are_what_the_rfc_says(some: list[bytes], cuts: list[int]):
    stream = b"".join(some)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    wanted = expected(stream)
    assert parsed(pieces) == wanted
    assert parsed([stream]) == wanted
    assert parsed([stream[at : at + 1] for at in range(len(stream))]) == wanted
