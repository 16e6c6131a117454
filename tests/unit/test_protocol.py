"""The codec: decoding commands, encoding replies, pushes and frames (protocol page, RFC 6455)."""

from __future__ import annotations

import re
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import protocol
from cluster.connection import pushes
from cluster.decoding_in_parts import DECODED_AT_ONCE
from cluster.errors import CLIENT_ERRORS, UNSUBSCRIBES, ClientError, Disconnect
from cluster.methods import METHODS
from cluster.protocol import (
    Position,
    Publication,
    SubscribeRequest,
    close_frame,
    decode,
    push_frame,
    push_prefix,
    text_frame,
)
from tests.architecture.tree import ROOT

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**53), max_value=2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
IDS = st.integers(min_value=1, max_value=2**32 - 1)


def closes_with(code: int, payload: bytes) -> bool:
    with pytest.raises(Disconnect) as caught:
        decode(payload)
    return caught.value.code == code


def params(method: str, given: dict[str, Any]) -> Any:
    """The parameters of one command, as they are decoded."""
    [command] = decode(orjson.dumps({"id": 1, method: given}))
    return command.params


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def unframed(data: bytes) -> tuple[int, bytes]:
    """Decode one server frame as in RFC 6455 §5.2; the data must contain nothing else."""
    first, size, start = data[0], data[1], 2
    assert size < 128, "a server never masks"
    if size == 126:
        size, start = int.from_bytes(data[2:4], "big"), 4
        assert size >= 126, "the shortest form must be used"
    elif size == 127:
        size, start = int.from_bytes(data[2:10], "big"), 10
        assert size >= 65536, "the shortest form must be used"
    assert len(data) == start + size
    return first, data[start:]


# --- reading -----------------------------------------------------------------------------

#: The methods that a command may have alone.
ALONE = tuple(method for method in METHODS if method != "ping")


@given(number=IDS, method=st.sampled_from(ALONE), more=st.dictionaries(st.text(min_size=12), JSON))
def test_a_command_is_decoded_as_it_was_encoded(number: int, method: str, more: dict[str, Any]):
    [command] = decode(orjson.dumps({"id": number, method: {"channel": "a", "token": "t", **more}}))
    assert (command.id, command.method) == (number, method)
    assert getattr(command.params, "channel", "a") == "a"
    assert getattr(command.params, "token", "t") == "t"


@given(st.lists(st.tuples(IDS, st.sampled_from(ALONE)), min_size=1, max_size=20), st.booleans())
def test_a_frame_of_several_lines_is_read_in_order(wanted: list[tuple[int, str]], ends: bool):
    frame = b"\n".join(orjson.dumps({"id": number, method: {}}) for number, method in wanted)
    commands = decode(frame + b"\n" * ends)
    assert [(command.id, command.method) for command in commands] == wanted


@pytest.mark.parametrize("payload", [b"", b"\n", b"{}\n\n", b"\n{}", b"{}\n\n{}"])
def test_an_empty_line_is_malformed(payload: bytes):
    assert closes_with(3501, payload)


@pytest.mark.parametrize("line", [b"{}", b'{"id":2,"rpc":{}}', b""])
def test_the_lines_of_a_large_message_are_not_cut_off_before_they_are_decoded(line: bytes):
    payload = b"{}\n" * DECODED_AT_ONCE + b"\n".join([line] * (65_000 // (len(line) + 1)))
    tracemalloc.start()
    try:
        commands = decode(payload)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not isinstance(commands, list)
    assert taken < 1.5 * len(payload)


@given(
    st.lists(st.sampled_from([b"", b"\r", b"{}", b'{"id":1}\r', b"[", b" ", b"\x00"]), max_size=70)
)
def test_every_line_is_decoded_and_nothing_but_its_newline_is_added(parts: list[bytes]):
    payload = b"\n".join(parts)
    lines = [line.removesuffix(b"\n") for line in protocol._lines(payload)]
    assert lines == (parts if payload else [])


@pytest.mark.parametrize(
    "payload",
    [b"{", b"[]", b"1", b"null", b'"x"', b"{}{}", b"{'id':1}", b"\x00", b'{"id":1,"rpc":{}}\n{'],
)
def test_malformed_input_closes_with_3501(payload: bytes):
    assert closes_with(3501, payload)


@pytest.mark.parametrize(
    "payload", [b"\xff", b'{"id":1,"rpc":{"method":"\xc3\x28"}}', b"{}\n\xed\xa0\x80"]
)
def test_invalid_utf_8_closes_with_1007(payload: bytes):
    assert closes_with(1007, payload)


def test_a_lone_surrogate_in_a_name_is_replaced_and_the_client_stays():
    # What JSON.stringify sends of a cut emoji; Go's decoders replace it too.
    for text, method in ((b"\\ud800", "\ufffd"), (b"\\\\\\uDC00\\ud83d\\ude00", "\\\ufffd😀")):
        [command] = decode(b'{"id":1,"rpc":{"method":"%b"}}' % text)
        assert command.params.method == method


@pytest.mark.parametrize("number", [b"-1", b"4294967296", b"1.0", b"true", b'"1"', b"[]", b"1e3"])
def test_an_id_that_is_not_a_uint32_closes_with_3501(number: bytes):
    assert closes_with(3501, b'{"id":%b,"rpc":{}}' % number)


def test_the_largest_id_is_accepted():
    [command] = decode(b'{"id":4294967295,"rpc":{}}')
    assert command.id == 2**32 - 1


@pytest.mark.parametrize(
    "payload", [b"{}", b'{"id":0}', b'{"subscribe":{"channel":"a"}}', b'{"x":1}']
)
def test_a_command_without_an_id_that_is_not_send_is_a_pong(payload: bytes):
    assert decode(payload) == [protocol.PONG]


def test_a_send_needs_no_id():
    [command] = decode(b'{"send":{"data":1}}')
    assert (command.id, command.method) == (0, "send")


def test_a_command_without_a_known_method_closes_with_3501():
    assert closes_with(3501, b'{"id":1,"dance":{}}')


@pytest.mark.parametrize("value", [b"null", b"[]", b"1", b'"x"', b"true"])
def test_parameters_must_be_an_object(value: bytes):
    assert closes_with(3501, b'{"id":1,"rpc":%b}' % value)


def test_the_first_method_in_the_protocols_order_wins():
    [command] = decode(b'{"rpc":{},"id":1,"connect":{}}')
    assert command.method == "connect"


def test_unknown_fields_are_ignored():
    [command] = decode(b'{"id":7,"tf":{},"subscribe":{"channel":"a","flag":1,"shiny":[1]}}')
    assert protocol.subscribe_request(command.params).channel == "a"


@given(st.binary(max_size=200))
def test_any_bytes_decode_to_commands_or_a_disconnect(payload: bytes):
    try:
        assert decode(payload)
    except Disconnect as why:
        assert why.code in {1007, 3501}


@given(st.dictionaries(st.sampled_from(["id", *METHODS]), JSON))
def test_any_json_is_read_or_rejected_with_a_code(document: dict[str, Any]):
    readers: dict[str, Any] = {
        "connect": protocol.connect_request,
        "subscribe": protocol.subscribe_request,
        "publish": protocol.publish_request,
        "history": protocol.history_request,
        "unsubscribe": protocol.channel_request,
        "sub_refresh": protocol.channel_request,
        "rpc": protocol.data_text,
    }
    try:
        for command in decode(orjson.dumps(document)):
            if command.method in readers:
                readers[command.method](command.params)
    except (Disconnect, ClientError) as why:
        assert why.code in {3501, 107}


# --- parameters --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"channel": ""},
        {},
        {"channel": None},
        {"channel": 1},
        {"channel": ["a"]},
        {"channel": "a", "token": 1},
        {"channel": "a", "recover": 1},
        {"channel": "a", "offset": "1"},
        {"channel": "a", "offset": -1},
        {"channel": "a", "offset": 2**53},
        {"channel": "a", "offset": 1.5},
        {"channel": "a", "epoch": 5},
        {"channel": "a", "flag": "x"},
        {"channel": "a", "delta": "vcdiff"},
        {"channel": "a", "positioned": "yes"},
    ],
)
def test_a_subscribe_with_a_wrong_type_closes_with_3501(given: dict[str, Any]):
    with pytest.raises(Disconnect) as caught:
        protocol.subscribe_request(params("subscribe", given))
    assert caught.value.code == 3501


def test_all_parameters_of_a_subscribe_are_read():
    given = {"channel": "a", "token": "t", "recover": True, "offset": 5, "epoch": "e",
             "positioned": True, "recoverable": True, "join_leave": True, "flag": 3,
             "delta": "fossil", "tf": {"key": "k", "cmp": "ex"}, "data": [1.50]}  # fmt: skip
    request = protocol.subscribe_request(params("subscribe", given))
    assert request == SubscribeRequest(
        "a",
        "t",
        True,
        Position(5, "e"),
        True,
        True,
        True,
        True,
        b'{"key":"k","cmp":"ex"}',
        True,
        b"[1.5]",
    )


@pytest.mark.parametrize(("flag", "rejects"), [(0, False), (1, False), (2, True), (3, True)])
def test_the_second_bit_of_the_flag_requests_an_error_instead(flag: int, rejects: bool):
    request = protocol.subscribe_request(params("subscribe", {"channel": "a", "flag": flag}))
    assert request.rejects_unrecovered is rejects


@pytest.mark.parametrize(
    "given",
    [{"token": 1}, {"subs": []}, {"subs": {"a": 1}}, {"subs": {"a": {"recover": "x"}}}, {"name": 1},
     {"subs": {"a": {"recover": True, "offset": -1}}}],
)  # fmt: skip
def test_a_connect_with_a_wrong_type_closes_with_3501(given: dict[str, Any]):
    with pytest.raises(Disconnect) as caught:
        protocol.connect_request(params("connect", given))
    assert caught.value.code == 3501


def test_a_connect_keeps_the_channels_of_subs_and_the_positions_to_recover_from():
    given = {"subs": {"a": {"recover": True, "offset": 2, "epoch": "e"}, "b": {}}, "data": {"x": 1}}
    request = protocol.connect_request(params("connect", given))
    assert request.subs == {"a": Position(2, "e"), "b": None}
    assert request.data == b'{"x":1}'


def test_null_data_is_a_value_and_absent_data_is_none():
    given = params("publish", {"channel": "a", "data": None})
    assert protocol.publish_request(given) == ("a", b"null")
    with pytest.raises(ClientError) as caught:
        protocol.publish_request(params("publish", {"channel": "a"}))
    assert caught.value.code == 107
    assert protocol.data_text(params("rpc", {})) == b""


@given(JSON)
def test_data_stays_the_same_json_and_holds_no_newline(data: Any):
    _, written = protocol.publish_request(params("publish", {"channel": "a", "data": data}))
    assert b"\n" not in written
    assert written == orjson.dumps(data)


@pytest.mark.parametrize("method", ["publish", "rpc"])
def test_data_is_nested_512_levels_deep_at_most(method: str):
    for levels, is_accepted in ((512, True), (513, False), (790, False)):
        [command] = decode(b'{"id":1,"%b":{"data":%b}}' % (method.encode(), nested(levels)))
        if is_accepted:
            assert protocol.data_text(command.params) == nested(levels)
        else:
            with pytest.raises(ClientError) as caught:
                protocol.data_text(command.params)
            assert caught.value.code == 107


@pytest.mark.parametrize("levels", [810, 2000, 30_000])
def test_data_nested_too_deeply_to_be_decoded_closes_with_3501(levels: int):
    assert closes_with(3501, b'{"id":1,"publish":{"channel":"a","data":%b}}' % nested(levels))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, (0, None, False)),
        ({"limit": -7}, (-1, None, False)),
        ({"limit": 5, "reverse": True}, (5, None, True)),
        ({"limit": 5, "since": {"offset": 3, "epoch": "e"}}, (5, Position(3, "e"), False)),
        ({"since": {}}, (0, Position(0, ""), False)),
    ],
)
def test_a_history_request_is_read(given: dict[str, Any], wanted: tuple[Any, ...]):
    request = protocol.history_request(params("history", {"channel": "a", **given}))
    assert request == ("a", *wanted)


def test_a_backward_read_from_offset_0_is_a_bad_request():
    with pytest.raises(ClientError) as caught:
        protocol.history_request(params("history", {"channel": "a", "since": {}, "reverse": True}))
    assert caught.value.code == 107


# --- writing -----------------------------------------------------------------------------


@given(IDS, st.sampled_from(METHODS), st.dictionaries(st.text(), JSON, max_size=4))
def test_a_reply_always_has_its_result_key(number: int, method: str, result: dict[str, Any]):
    written = orjson.loads(protocol.reply(number, method, result))
    assert written == {"id": number, method: orjson.loads(orjson.dumps(result))}
    assert orjson.loads(protocol.reply(number, method)) == {"id": number, method: {}}


@pytest.mark.parametrize("error", CLIENT_ERRORS, ids=str)
def test_an_error_says_temporary_only_when_it_is(error: ClientError):
    body = orjson.loads(protocol.error_reply(3, error))["error"]
    assert (body["code"], body["message"]) == (error.code, error.message)
    assert ("temporary" in body) == error.temporary


@pytest.mark.parametrize("why", UNSUBSCRIBES, ids=str)
def test_an_unsubscribe_carries_code_and_reason(why: Any):
    push = orjson.loads(pushes.unsubscribe_push('q"', why))["push"]
    assert push == {"channel": 'q"', "unsubscribe": {"code": why.code, "reason": why.reason}}


def test_a_message_push_has_no_channel():
    assert orjson.loads(pushes.message_push(None)) == {"push": {"message": {"data": None}}}


def test_a_publication_without_history_has_no_offset():
    assert protocol.publication_json(Publication(0, "", b'{"data":1}')) == b'{"data":1}'


def test_only_the_first_publication_of_a_stream_carries_the_epoch():
    first = orjson.loads(protocol.publication_json(Publication(1, "abc", b'{"data":1}')))
    second = orjson.loads(protocol.publication_json(Publication(2, "abc", b'{"data":1}')))
    assert first == {"data": 1, "offset": 1, "epoch": "abc"}
    assert second == {"data": 1, "offset": 2}


def test_the_publisher_is_always_named_even_when_anonymous():
    body = orjson.loads(protocol.publication_body(b"1", "", "id", b""))
    assert body == {"data": 1, "info": {"user": "", "client": "id"}}
    with_info = orjson.loads(protocol.publication_body(b"1", "u", "id", b'{"name":"x"}'))
    assert with_info["info"]["conn_info"] == {"name": "x"}


@given(st.text(min_size=1), JSON, st.integers(min_value=0, max_value=2**53 - 1))
def test_a_push_frame_is_one_text_frame_of_one_json_document(channel: str, data: Any, offset: int):
    publication = Publication(offset, "e", b'{"data":%b}' % orjson.dumps(data))
    first, payload = unframed(push_frame(push_prefix(channel), publication))
    push = orjson.loads(payload)["push"]
    assert first == 0x81
    assert b"\n" not in payload
    assert push["channel"] == channel
    assert push["pub"]["data"] == orjson.loads(orjson.dumps(data))
    assert push["pub"].get("offset", 0) == offset


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70_000])
def test_a_frame_uses_the_shortest_length_form(size: int):
    assert unframed(text_frame(b"x" * size)) == (0x81, b"x" * size)


@given(st.binary(max_size=400))
def test_any_payload_survives_its_frame(payload: bytes):
    assert unframed(text_frame(payload)) == (0x81, payload)


def test_a_close_frame_holds_code_and_reason_and_fits_a_control_frame():
    assert unframed(close_frame(3001, "shutdown")) == (0x88, b"\x0b\xb9shutdown")
    _, payload = unframed(close_frame(4000, "x" * 500))
    assert len(payload) == 125


def test_a_cut_close_reason_is_still_utf_8():
    _, payload = unframed(close_frame(4000, "é" * 100))
    assert payload[2:].decode()


def test_native_pings_and_pongs_are_control_frames():
    assert unframed(protocol.native_ping_frame()) == (0x89, b"")
    assert unframed(protocol.native_pong_frame(b"x" * 200)) == (0x8A, b"x" * 125)
    assert unframed(protocol.PING_FRAME) == (0x81, b"{}")


def test_publications_in_a_reply_are_the_same_json_as_in_a_push():
    publication = Publication(2, "e", b'{"data":{"t":1}}')
    written = orjson.dumps({"p": protocol.publications_json([publication])})
    assert orjson.loads(written) == {"p": [{"data": {"t": 1}, "offset": 2}]}


def test_no_other_module_of_the_cluster_encodes_frames():
    header = re.compile(r"\b0x8[1-9A-Fa-f]\b|to_bytes\([28], \"big\"\)|\\x8[0-9A-Fa-f]")
    found = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "cluster").rglob("*.py"))
        if header.search(path.read_text())
    ]
    assert found == ["cluster/protocol.py"]
