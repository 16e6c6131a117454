"""The cases of Autobahn's test suite for servers, sections 1 to 7 and 10, written anew as a table.

Numbers are Autobahn's; what is sent and expected is told in our own code. All 247 cases are here. A
close frame is the last that is sent unless the server has to close, and order decides the rest, so no
case waits for a time.

Deviations from the suite:
- 7.13.1 and 7.13.2 (close codes 5000 and 65535) are informational there; here they must be 1002.
- 7.1.6 is informational there too; here the message must come back before the close frame.
- 6.4.1 to 6.4.4 must fail at the first invalid octet; the suite also accepts the end of the message.
- 7.5.1, 7.3.2 and 7.3.6 must be answered with a close code; the suite also accepts a dropped connection.
- 5.19 and 5.20 wait a second between fragments there; here the order of what comes back shows as much.
- 6.12.8 and 6.13.1 take all octets of their range. Section 9 (performance) and sections 12 and 13
  (compression, which is not negotiated) are left out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.harness.wire import BINARY, CLOSE, PING, PONG, TEXT, frame

CONTINUATION = 0x0
Frame = tuple[int, bytes]

#: How many cases each group has.
GROUPS = {
    "1.1": 8, "1.2": 8, "2": 11, "3": 7, "4.1": 5, "4.2": 5, "5": 20, "6.1": 3, "6.2": 4, "6.3": 2,
    "6.4": 4, "6.5": 5, "6.6": 11, "6.7": 4, "6.8": 2, "6.9": 4, "6.10": 3, "6.11": 5, "6.12": 8,
    "6.13": 5, "6.14": 10, "6.15": 1, "6.16": 3, "6.17": 5, "6.18": 5, "6.19": 5, "6.20": 7,
    "6.21": 8, "6.22": 34, "6.23": 7, "7.1": 6, "7.3": 6, "7.5": 1, "7.7": 13, "7.9": 9, "7.13": 2,
    "10.1": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Attributes:
        pieces: what is sent, each piece by itself.
        returned: the frames that come back before the close frame.
        code: of the close frame that comes last.
    """

    number: str
    pieces: tuple[bytes, ...]
    returned: tuple[Frame, ...] = ()
    code: int = 1000

    @property
    def has_message(self) -> bool:
        """Whether a message of an application reaches the server."""
        return any(opcode in {TEXT, BINARY} for opcode, _ in self.returned)


NORMAL_CLOSE = frame(CLOSE, struct.pack("!H", 1000))
HELLO = b"Hello, world!"
OCTETS = bytes(range(0xFE, 0xFE - 125, -1))


def octets(*frames: bytes) -> tuple[bytes, ...]:
    """Each octet by itself."""
    whole = b"".join(frames)
    return tuple(whole[at : at + 1] for at in range(len(whole)))


def chops(data: bytes, size: int) -> tuple[bytes, ...]:
    return tuple(data[at : at + size] for at in range(0, len(data), size))


def fragments(opcode: int, parts: Sequence[bytes]) -> list[bytes]:
    """One message in as many frames."""
    last = len(parts) - 1
    return [
        frame(opcode if at == 0 else CONTINUATION, part, fin=at == last)
        for at, part in enumerate(parts)
    ]


def with_first(change: int, whole: bytes) -> bytes:
    """A frame with other bits set in its first octet."""
    return bytes([whole[0] | change]) + whole[1:]


def clean(number: str, pieces: Sequence[bytes], *returned: Frame) -> Case:
    return Case(number, (*pieces, NORMAL_CLOSE), returned)


def failed(number: str, pieces: Sequence[bytes], *returned: Frame, code: int = 1002) -> Case:
    return Case(number, tuple(pieces), returned, code)


def framing() -> Iterator[Case]:
    for group, opcode, content in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        for index, size in enumerate((0, 125, 126, 127, 128, 65535, 65536, 65536), start=1):
            payload = content * size
            whole = frame(opcode, payload)
            pieces = chops(whole, 997) if index == 8 else (whole,)
            yield clean(f"1.{group}.{index}", pieces, (opcode, payload))


def pings() -> Iterator[Case]:
    for index, payload in enumerate((b"", HELLO, b"\0\xff\xfe\xfd\xfc\xfb\0\xff", OCTETS), start=1):
        yield clean(f"2.{index}", [frame(PING, payload)], (PONG, payload))
    yield failed("2.5", [frame(PING, OCTETS + b"\xfe")])
    yield clean("2.6", octets(frame(PING, OCTETS)), (PONG, OCTETS))
    yield clean("2.7", [frame(PONG, b"")])
    yield clean("2.8", [frame(PONG, b"unasked")])
    yield clean("2.9", [frame(PONG, b"unasked"), frame(PING, b"asked")], (PONG, b"asked"))
    payloads = [b"payload-%d" % number for number in range(10)]
    many = [frame(PING, payload) for payload in payloads]
    pongs = [(PONG, payload) for payload in payloads]
    yield clean("2.10", [b"".join(many)], *pongs)
    yield clean("2.11", octets(*many), *pongs)


def reserved_bits() -> Iterator[Case]:
    text, ping, echo = frame(TEXT, HELLO), frame(PING, b""), (TEXT, HELLO)
    yield failed("3.1", [with_first(0x10, text)])
    yield failed("3.2", [text + with_first(0x20, text) + ping], echo)
    yield failed("3.3", [text, with_first(0x30, text), ping], echo)
    yield failed("3.4", octets(text, with_first(0x40, text), ping), echo)
    yield failed("3.5", [with_first(0x50, frame(BINARY, b"\0\xff"))])
    yield failed("3.6", [with_first(0x60, frame(PING, HELLO))])
    yield failed("3.7", [with_first(0x70, NORMAL_CLOSE)])


def opcodes() -> Iterator[Case]:
    text, ping, echo = frame(TEXT, HELLO), frame(PING, b""), (TEXT, HELLO)
    for group, first in ((1, 3), (2, 11)):
        yield failed(f"4.{group}.1", [frame(first, b"")])
        yield failed(f"4.{group}.2", [frame(first + 1, b"reserved")])
        yield failed(f"4.{group}.3", [text, frame(first + 2, b""), ping], echo)
        yield failed(f"4.{group}.4", [text, frame(first + 3, b"reserved"), ping], echo)
        yield failed(f"4.{group}.5", octets(text, frame(first + 4, b"reserved"), ping), echo)


def fragmentation() -> Iterator[Case]:
    one, two = fragments(TEXT, [b"fragment1", b"fragment2"])
    echo, ping, pong = (TEXT, b"fragment1fragment2"), frame(PING, b"ping"), (PONG, b"ping")
    yield failed("5.1", fragments(PING, [b"fragment1", b"fragment2"]))
    yield failed("5.2", fragments(PONG, [b"fragment1", b"fragment2"]))
    yield clean("5.3", [one + two], echo)
    yield clean("5.4", [one, two], echo)
    yield clean("5.5", octets(one, two), echo)
    yield clean("5.6", [one + ping + two], pong, echo)
    yield clean("5.7", [one, ping, two], pong, echo)
    yield clean("5.8", octets(one, ping, two), pong, echo)
    text = frame(TEXT, HELLO)
    for index, is_final in ((9, True), (12, False)):
        stray = frame(CONTINUATION, b"nothing to continue", fin=is_final)
        yield failed(f"5.{index}", [stray + text])
        yield failed(f"5.{index + 1}", [stray, text])
        yield failed(f"5.{index + 2}", octets(stray, text))
    yield failed("5.15", [one + two + frame(CONTINUATION, b"stray", fin=False) + text], echo)
    for index, is_final in ((16, False), (17, True)):
        stray = frame(CONTINUATION, b"stray", fin=is_final)
        yield failed(f"5.{index}", [stray, one, two, stray, one, two])
    yield failed("5.18", [one + frame(TEXT, b"fragment2")])
    parts = fragments(TEXT, [b"fragment%d" % number for number in range(1, 6)])
    frames = [*parts[:2], frame(PING, b"1"), *parts[2:4], frame(PING, b"2"), parts[4]]
    whole = (TEXT, b"fragment1fragment2fragment3fragment4fragment5")
    yield clean("5.19", [b"".join(frames)], (PONG, b"1"), (PONG, b"2"), whole)
    yield clean("5.20", frames, (PONG, b"1"), (PONG, b"2"), whole)


# The accent is that of U+1F79, as Markus Kuhn wrote the word: three octets. U+03CC looks the same.
GREEK = "κ\u1f79σμε".encode()
GERMAN = "Hello-µ@ßöä", "üàá-UTF-8!!"
SURROGATE = GREEK + b"\xed\xa0\x80edited"


def each_octet(payload: bytes) -> list[bytes]:
    return fragments(TEXT, [payload[at : at + 1] for at in range(len(payload))])


def text_messages() -> Iterator[Case]:
    german = "".join(GERMAN).encode()
    yield clean("6.1.1", [frame(TEXT, b"")], (TEXT, b""))
    yield clean("6.1.2", fragments(TEXT, [b"", b"", b""]), (TEXT, b""))
    yield clean("6.1.3", fragments(TEXT, [b"", b"middle", b""]), (TEXT, b"middle"))
    yield clean("6.2.1", [frame(TEXT, german)], (TEXT, german))
    yield clean("6.2.2", fragments(TEXT, [part.encode() for part in GERMAN]), (TEXT, german))
    yield clean("6.2.3", each_octet(german), (TEXT, german))
    yield clean("6.2.4", each_octet(GREEK), (TEXT, GREEK))
    yield failed("6.3.1", [frame(TEXT, SURROGATE)], code=1007)
    yield failed("6.3.2", each_octet(SURROGATE), code=1007)
    # Nothing is sent behind the first invalid octet: the server does not wait for more.
    first, second = frame(TEXT, GREEK, fin=False), b"\xf4\x90\x80\x80"
    yield failed("6.4.1", [first, frame(CONTINUATION, second, fin=False)], code=1007)
    first, second = frame(TEXT, GREEK + b"\xf4", fin=False), b"\x90"
    yield failed("6.4.2", [first, frame(CONTINUATION, second, fin=False)], code=1007)
    whole = frame(TEXT, GREEK + b"\xf4\x90\x80\x80edited")
    start = len(whole) - len(b"\xf4\x90\x80\x80edited")
    yield failed("6.4.3", [whole[:start], whole[start : start + 4]], code=1007)
    yield failed("6.4.4", [whole[: start + 1], whole[start + 1 : start + 2]], code=1007)


def lonely(first: int, last: int) -> bytes:
    """Octets that begin a character, each followed by a space."""
    return b"".join(bytes([octet, 0x20]) for octet in range(first, last + 1))


SURROGATES = ("eda080", "edadbf", "edae80", "edafbf", "edb080", "edbe80", "edbfbf")
#: Payloads in hexadecimal; the groups are those of Markus Kuhn's stress test for UTF-8 decoders.
PAYLOADS: dict[str, Sequence[str]] = {
    "6.5": [
        *(b"hello%bworld".hex().replace("2562", one) for one in ("24", "c2a2", "e282ac", "f0a4ada2")),
        GREEK.hex(),
    ],
    "6.6": [GREEK[:size].hex() for size in range(1, 12)],
    "6.7": ["00", "c280", "e0a080", "f0908080"],
    "6.8": ["f888808080", "fc8480808080"],
    "6.9": ["7f", "dfbf", "efbfbf", "f48fbfbf"],
    "6.10": ["f7bfbfbf", "fbbfbfbfbf", "fdbfbfbfbfbf"],
    "6.11": ["ed9fbf", "ee8080", "efbfbd", "f48fbfbf", "f4908080"],
    "6.12": [
        "80", "bf", *(("80bf" * 3)[: 2 * size] for size in range(2, 7)),
        bytes(range(0x80, 0xC0)).hex(),
    ],
    "6.13": [
        lonely(*ends).hex()
        for ends in ((0xC0, 0xDF), (0xE0, 0xEF), (0xF0, 0xF7), (0xF8, 0xFB), (0xFC, 0xFD))
    ],
    "6.14": [
        "c0", "e080", "f08080", "f8808080", "fc80808080",
        "df", "efbf", "f7bfbf", "fbbfbfbf", "fdbfbfbfbf",
    ],
    "6.15": ["c0e080f08080f8808080fc80808080dfefbff7bfbffbbfbfbffdbfbfbfbf"],
    "6.16": ["fe", "ff", "fefeffff"],
    "6.17": ["c0af", "e080af", "f08080af", "f8808080af", "fc80808080af"],
    "6.18": ["c1bf", "e09fbf", "f08fbfbf", "f887bfbfbf", "fc83bfbfbfbf"],
    "6.19": ["c080", "e08080", "f0808080", "f880808080", "fc8080808080"],
    "6.20": SURROGATES,
    "6.21": [high + low for high in SURROGATES[:4] for low in ("edb080", "edbfbf")],
    "6.22": [
        chr(plane * 0x10000 + low).encode().hex() for plane in range(17) for low in (0xFFFE, 0xFFFF)
    ],
    "6.23": [chr(point).encode().hex() for point in range(0xFFF9, 0x10000)],
}  # fmt: skip


def text_payloads() -> Iterator[Case]:
    for group, payloads in PAYLOADS.items():
        for index, digits in enumerate(payloads, start=1):
            payload = bytes.fromhex(digits)
            try:
                payload.decode()
            except UnicodeDecodeError:
                yield failed(f"{group}.{index}", [frame(TEXT, payload)], code=1007)
            else:
                yield clean(f"{group}.{index}", [frame(TEXT, payload)], (TEXT, payload))


def closing(number: str, payload: bytes, code: int) -> Case:
    return Case(number, (frame(CLOSE, payload),), code=code)


def closes() -> Iterator[Case]:
    text, echo = frame(TEXT, HELLO), (TEXT, HELLO)
    one, two = fragments(TEXT, [b"fragment1", b"fragment2"])
    large = b"*" * 2**18
    yield clean("7.1.1", [text], echo)
    yield clean("7.1.2", [NORMAL_CLOSE])
    yield Case("7.1.3", (NORMAL_CLOSE + frame(PING, b""),))
    yield Case("7.1.4", (NORMAL_CLOSE + text,))
    yield Case("7.1.5", (one + NORMAL_CLOSE + two,))
    yield Case("7.1.6", (frame(TEXT, large) + NORMAL_CLOSE + frame(PING, b""),), ((TEXT, large),))
    normal = struct.pack("!H", 1000)
    yield closing("7.3.1", b"", 1000)
    yield closing("7.3.2", b"a", 1002)
    yield closing("7.3.3", normal, 1000)
    yield closing("7.3.4", normal + HELLO, 1000)
    yield closing("7.3.5", normal + b"*" * 123, 1000)
    yield closing("7.3.6", normal + b"*" * 124, 1002)
    yield closing("7.5.1", normal + SURROGATE, 1007)
    valid = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    for index, code in enumerate(valid, start=1):
        yield closing(f"7.7.{index}", struct.pack("!H", code), code)
    for index, code in enumerate((0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999), start=1):
        yield closing(f"7.9.{index}", struct.pack("!H", code), 1002)
    yield closing("7.13.1", struct.pack("!H", 5000), 1002)
    yield closing("7.13.2", struct.pack("!H", 65535), 1002)


def miscellaneous() -> Iterator[Case]:
    payload = b"*" * 65536
    yield clean("10.1.1", fragments(TEXT, chops(payload, 1300)), (TEXT, payload))


CASES: tuple[Case, ...] = (
    *framing(), *pings(), *reserved_bits(), *opcodes(), *fragmentation(), *text_messages(),
    *text_payloads(), *closes(), *miscellaneous(),
)  # fmt: skip
