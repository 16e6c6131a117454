"""What the clients that stand for the SDKs for Dart and Swift write: the bytes, and that the server reads them alike."""

from __future__ import annotations

import pytest
from centrifuge.protocol import client_pb2

from cluster.protobuf import PROTOBUF
from tests.conformance.played_commands import Fields, sized_command
from tests.conformance.played_wire import DART, SWIFT, Kind
from tests.unit.test_protobuf import sized

SUBSCRIBE: Fields = [
    ("channel", "a"),
    ("token", ""),
    ("positioned", False),
    ("recoverable", False),
    ("join_leave", False),
    ("flag", 1),
]
BACK: Fields = [
    ("name", "n"),
    ("version", ""),
    ("subs", [("key", "a"), ("value", [("offset", 0), ("epoch", "e"), ("recover", True)])]),
]
HISTORY_COMMAND: Fields = [("channel", "a"), ("limit", -1), ("reverse", False)]
WRITTEN = [
    (DART, 0, "", [], "00"),
    (SWIFT, 0, "", [], "00"),
    (DART, 2, "subscribe", SUBSCRIBE, "11 0802 2a0d 0a0161 1200 4800 5000 5800 7001"),
    (SWIFT, 2, "subscribe", SUBSCRIBE, "09 0802 2a05 0a0161 7001"),
    (DART, 1, "connect", BACK, "17 0801 2213 1a0c 0a0161 1207 1801 320165 3800 22016e 2a00"),
    (SWIFT, 1, "connect", BACK, "13 0801 220f 1a0a 0a0161 1205 1801 320165 22016e"),
    (DART, 3, "history", HISTORY_COMMAND, "14 0803 5210 0a0161 38ffffffffffffffffff01 4800"),
    (SWIFT, 3, "history", HISTORY_COMMAND, "12 0803 520e 0a0161 38ffffffffffffffffff01"),
    (DART, 0, "send", [("data", b"")], "04 6202 0a00"),
    (SWIFT, 0, "send", [("data", b"")], "02 6200"),
]


@pytest.mark.parametrize(("kind", "number", "method", "fields", "written"), WRITTEN)
def test_the_bytes_are_those_of_the_two_libraries(
    kind: Kind, number: int, method: str, fields: Fields, written: str
):
    encoded = sized_command(number, method, fields, kind.writes_defaults)
    assert encoded == bytes.fromhex(written)


@pytest.mark.parametrize(
    ("method", "fields"),
    [("subscribe", SUBSCRIBE), ("connect", BACK), ("history", HISTORY_COMMAND)],
)
def test_what_dart_writes_beyond_swift_makes_no_difference(method: str, fields: Fields):
    one, other = (
        list(PROTOBUF.decode(sized_command(5, method, fields, it))) for it in (False, True)
    )
    assert one == other


def test_swift_s_bytes_are_those_of_google_s_library():
    command = client_pb2.Command(id=300, history={"channel": "a", "limit": -1})
    assert sized_command(300, "history", HISTORY_COMMAND, writes_defaults=False) == sized(command)
