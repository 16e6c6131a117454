"""The Protobuf codec, against the classes that the Python SDK publishes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from centrifuge.protocol import client_pb2
from hypothesis import given
from hypothesis import strategies as st

from cluster.codec import JSON
from cluster.errors import Disconnect
from cluster.methods import METHODS
from cluster.protobuf import PROTOBUF
from cluster.protobuf.decoding import MOST_COMMANDS
from cluster.protobuf.schema import MESSAGES, Field
from cluster.protocol import (
    Command,
    connect_request,
    history_request,
    publish_request,
    subscribe_request,
)

THEIRS: Any = client_pb2.DESCRIPTOR.message_types_by_name
SCALARS = {3: "int64", 4: "uint64", 5: "int32", 8: "bool", 9: "string", 12: "bytes", 13: "uint32"}


def sized(*messages: Any) -> bytes:
    """What an SDK sends."""
    payload = b""
    for message in messages:
        encoded = message.SerializeToString()
        size = len(encoded)
        while size > 0x7F:
            payload += bytes((size & 0x7F | 0x80,))
            size >>= 7
        payload += bytes((size,)) + encoded
    return payload


def command(number: int, name: str, /, **params: Any) -> Any:
    return client_pb2.Command(id=number, **{name: params})


def replies(frame: bytes) -> list[Any]:
    """What an SDK reads of a frame."""
    assert frame[0] == 0x82, "a binary frame"
    start = {126: 4, 127: 10}.get(frame[1], 2)
    rest, found = frame[start:], []
    while rest:
        size = shift = 0
        while True:
            byte, rest = rest[0], rest[1:]
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        found.append(client_pb2.Reply.FromString(rest[:size]))
        rest = rest[size:]
    return found


def reply(**document: Any) -> Any:
    [found] = replies(PROTOBUF.frame(orjson.dumps(document)))
    return found


# --- the messages --------------------------------------------------------------------------


def check_same(name: str, theirs: Any, seen: set[str]) -> None:
    if name in seen:
        return
    seen.add(name)
    for field in MESSAGES[name]:
        other = theirs.fields_by_name[field.name]
        assert field.number == other.number, (name, field.name)
        check_same_type(field, other, seen)


def check_same_type(field: Field, theirs: Any, seen: set[str]) -> None:
    is_map = theirs.message_type is not None and theirs.message_type.GetOptions().map_entry
    assert field.is_map == is_map, field
    assert field.is_list == (theirs.is_repeated and not is_map), field
    if is_map:
        theirs = theirs.message_type.fields_by_name["value"]
    if field.is_message:
        check_same(field.type, theirs.message_type, seen)
    else:
        assert SCALARS[theirs.type] == field.type, field


def test_the_messages_are_those_of_the_published_sdk():
    seen: set[str] = set()
    check_same("Command", THEIRS["Command"], seen)
    check_same("Reply", THEIRS["Reply"], seen)
    assert seen == set(MESSAGES)


# --- decoding ------------------------------------------------------------------------------


def test_every_method_can_be_decoded():
    sent = [command(number, method) for number, method in enumerate(METHODS, 1)]
    found = PROTOBUF.decode(sized(*sent))
    assert [(one.id, one.method) for one in found] == list(enumerate(METHODS, 1))


def one_of(sent: Any) -> Command:
    [found] = PROTOBUF.decode(sized(sent))
    return found


def test_a_connect_is_read():
    sent = command(1, "connect", token="t", data=b'{"session":"s"}', name="dart", version="1.2")
    sent.connect.subs["a"].recover = True
    sent.connect.subs["a"].offset = 7
    sent.connect.subs["a"].epoch = "e"
    sent.connect.headers["X-Team"] = "blue"
    token, data, subs, *others = connect_request(one_of(sent).params)
    assert (token, data, subs) == ("t", b'{"session":"s"}', {"a": (7, "e")})
    assert others == ["dart", "1.2", {"X-Team": "blue"}]


def test_a_subscribe_is_read():
    node = {"op": "or", "nodes": [{"key": "k", "cmp": "in", "vals": ["x", "y"]}]}
    sent = command(
        2, "subscribe", channel="a", token="t", recover=True, offset=3, epoch="e", tf=node,
        flag=3, delta="fossil", positioned=True, recoverable=True, join_leave=True, data=b"[1]",
    )  # fmt: skip
    request = subscribe_request(one_of(sent).params)
    assert request[:4] == ("a", "t", True, (3, "e"))
    assert (request.positioned, request.recoverable, request.join_leave) == (True, True, True)
    assert (request.rejects_unrecovered, request.delta, request.data) == (True, True, b"[1]")
    assert orjson.loads(request.tags_filter)["nodes"][0]["vals"] == ["x", "y"]


def test_a_subscribe_without_more_asks_for_nothing():
    request = subscribe_request(one_of(command(2, "subscribe", channel="a")).params)
    assert request == ("a", "", False, (0, ""), False, False, False, False, b"", False, b"")


def test_a_history_is_read():
    sent = command(2, "history", channel="a", limit=-1, since={"offset": 5, "epoch": "e"})
    assert history_request(one_of(sent).params) == ("a", -1, (5, "e"), False)
    assert history_request(one_of(command(2, "history", channel="a")).params).since is None


def test_data_may_be_any_bytes():
    assert publish_request(one_of(command(2, "publish", channel="a", data=b"[1]")).params) == (
        "a", b"[1]",
    )  # fmt: skip
    channel, text = publish_request(one_of(command(2, "publish", channel="a", data=b"\0")).params)
    assert (channel, orjson.loads(text)) == ("a", "data:;base64,AA==")


def test_an_empty_message_is_a_pong():
    assert [one.method for one in PROTOBUF.decode(b"\0\0")] == ["pong", "pong"]
    assert one_of(client_pb2.Command(rpc={})).method == "pong"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x05\x08",
        b"\x80",
        b"\xff" * 12,
        b"\x02\xff\xff",
        b'{"id":1,"connect":{}}',
        sized(client_pb2.Command(id=1)),
        b"\x07\x08\x01\x2a\x03\x0a\x01\xff",
        sized(command(1, "rpc")) + b"\x01",
        b"\0" * (MOST_COMMANDS + 1),
    ],
    ids=[
        "nothing", "cut", "cut length", "endless length", "no message", "JSON", "no method",
        "invalid UTF-8", "cut after a command", "too many",
    ],
)  # fmt: skip
def test_what_is_no_list_of_commands_is_refused(payload: bytes):
    with pytest.raises(Disconnect) as refused:
        list(PROTOBUF.decode(payload))
    assert refused.value.code == 3501


def test_a_long_message_is_decoded_as_its_commands_are_taken():
    found = PROTOBUF.decode(sized(*(command(n, "rpc") for n in range(1, 101))) + b"\x05\x08")
    assert not isinstance(found, list)
    taken = iter(found)
    assert [next(taken).id for _ in range(100)] == list(range(1, 101))
    with pytest.raises(Disconnect):
        next(taken)


def test_a_filter_that_is_nested_too_deeply_is_refused():
    sent = command(1, "subscribe", channel="a")
    node = sent.subscribe.tf
    for _ in range(200):
        node = node.nodes.add()
    with pytest.raises(Disconnect) as refused:
        PROTOBUF.decode(sized(sent))
    assert refused.value.code == 3501


@given(st.binary(max_size=80))
def test_any_bytes_are_commands_or_refused(payload: bytes):
    try:
        found = list(PROTOBUF.decode(payload))
    except Disconnect as refused:
        assert refused.code == 3501
    else:
        assert all(one.method == "pong" or one.method in METHODS for one in found)


# --- encoding ------------------------------------------------------------------------------


def test_an_empty_result_is_present():
    found = reply(id=3, unsubscribe={})
    assert (found.id, found.HasField("unsubscribe"), found.HasField("publish")) == (3, True, False)


def test_an_error_is_encoded():
    found = reply(id=3, error={"code": 100, "message": "internal", "temporary": True})
    assert (found.error.code, found.error.message, found.error.temporary) == (100, "internal", True)


def test_results_of_subscribe_and_presence_are_encoded():
    pubs = [{"data": {"a": 1.5}, "offset": 2**53 - 1, "tags": {"k": "v"}, "delta": True}]
    result = {"recoverable": True, "epoch": "e", "offset": 9, "publications": pubs}
    found = reply(id=2, connect={"client": "c", "subs": {"a": result}, "ping": 25, "pong": True})
    sub = found.connect.subs["a"]
    assert (sub.recoverable, sub.epoch, sub.offset) == (True, "e", 9)
    assert sub.publications[0].data == b'{"a":1.5}'
    assert (sub.publications[0].offset, sub.publications[0].delta) == (2**53 - 1, True)
    assert dict(sub.publications[0].tags) == {"k": "v"}
    member = {"user": "u", "client": "c", "conn_info": {"n": "é"}, "chan_info": [1]}
    info = reply(id=2, presence={"presence": {"c": member}}).presence.presence["c"]
    assert (info.user, info.conn_info, info.chan_info) == ("u", '{"n":"é"}'.encode(), b"[1]")


def test_pushes_are_encoded():
    info = {"user": "u", "client": "c"}
    assert reply(push={"channel": "a", "join": {"info": info}}).push.join.info.user == "u"
    assert reply(push={"channel": "a", "leave": {"info": info}}).push.leave.info.client == "c"
    ended = reply(push={"channel": "a", "unsubscribe": {"code": 2500, "reason": "lost"}})
    assert (ended.push.unsubscribe.code, ended.push.unsubscribe.reason) == (2500, "lost")
    message = reply(push={"message": {"data": "data:;base64,AAEC"}})
    assert message.push.message.data == b"\0\1\2"
    assert reply(push={"refresh": {"expires": True, "ttl": 9}}).push.refresh.ttl == 9
    assert reply(push={"channel": "a", "subscribe": {"offset": 4}}).push.subscribe.offset == 4


def test_lone_surrogates_in_data_are_kept_and_in_names_replaced():
    [found] = replies(PROTOBUF.frame(rb'{"id":1,"rpc":{"data":"\ud83d"}}'))
    assert found.rpc.data == rb'"\ud83d"'
    [found] = replies(PROTOBUF.frame(rb'{"id":1,"error":{"code":1,"message":"\ud83d"}}'))
    assert found.error.message == "\ufffd"


def test_several_documents_are_one_frame():
    documents = [orjson.dumps({"push": {"channel": str(number)}}) for number in range(40)]
    found = replies(PROTOBUF.frames(documents))
    assert [one.push.channel for one in found] == [str(number) for number in range(40)]
    assert orjson.loads(b"[%b]" % JSON.frames(documents[:2])[2:].replace(b"\n", b","))


def test_a_ping_is_one_byte():
    assert PROTOBUF.ping_frame == b"\x82\x01\x00"
    assert JSON.ping_frame == b"\x81\x02{}"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=8,
    ),
    st.text(max_size=8),
)
def test_data_arrives_as_the_json_that_it_is(data: Any, channel: str):
    pub = {"data": data, "offset": 1, "info": {"user": "u", "client": "c"}}
    found = reply(push={"channel": channel, "pub": pub}).push
    assert found.channel == channel
    assert orjson.loads(found.pub.data) == data
