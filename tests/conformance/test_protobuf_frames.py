"""Every field that the server sends to Protobuf clients, read as the SDKs that have not connected here read it.

The SDKs for Dart and Swift cannot be built here. What they are given can be read: over nginx and two workers, each
way a client may ask, each thing the server may say, and each field of `cluster.protobuf.schema` at least once.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import cent
import pytest
from centrifuge.protocol import client_pb2

from cluster.protobuf.schema import MESSAGES
from tests.conformance.protobuf_frames import BadFrame, fields_of, replies_of
from tests.harness.cluster import Cluster
from tests.harness.waiting import until
from tests.harness.wire import BINARY, Wire, frame, open_wire
from tests.unit.test_auth import token
from tests.unit.test_protobuf import command, sized

KEY = "k" * 32
API_KEY = "a-key-that-is-long-enough-for-everything"
HISTORY = {"history_size": 10, "history_ttl": "60s", "force_recovery": True}
MEMBERS = {"presence": True, "join_leave": True, "force_push_join_leave": True}
CONFIG: dict[str, Any] = {
    "app": {"target": "application:app"},
    "client": {"insecure": False, "token": {"hmac_secret_key": KEY}},
    "http_api": {"key": API_KEY},
    "channel": {
        "namespaces": [
            {
                "name": "all",
                **HISTORY,
                **MEMBERS,
                "allowed_delta_types": ["fossil"],
                "delta_publish": True,
                "allow_publish_for_subscriber": True,
                "allow_history_for_subscriber": True,
                "allow_presence_for_subscriber": True,
            },
            {"name": "server", **HISTORY},
        ]
    },
}
APPLICATION = """
import cluster

app = cluster.Application()


@app.rpc("double")
def double(client, data):
    return {"twice": 2 * data["n"]}


@app.rpc("busy")
def busy(client, data):
    raise cluster.ApplicationError(1042, "not now", temporary=True)


@app.message
def echo(client, data):
    client.send({"echo": data})
"""
#: The command `ping` is answered with error 108.
NEVER_SENT = {"Reply.ping"}
LONG = {"text": "grüße 😀 " * 60}
BAD: dict[str, tuple[bytes | str, str]] = {
    "text": ("{}", "text"),
    "nothing": (b"", "no reply"),
    "cut": (b"\x05\x08", "1 bytes where 5"),
    "a length that does not end": (b"\x80\x80", "no end"),
    "a length of six bytes": (b"\x80\x80\x80\x80\x80\x01", "no end"),
    "a length that is longer than it need be": (b"\x82\x00\x08\x01", "written as 8200"),
    "a length beyond 31 bits": (b"\x80\x80\x80\x80\x08", "written as 8080808008"),
    "no message": (b"\x02\xff\xff", "no reply"),
    "a field that a reply has not": (b"\x03\xf8\x07\x01", "Reply has no field 127"),
    "such a field further down": (b"\x09\x22\x07\x12\x01a\x2a\x02\x78\x01", "Join has no field 15"),
    "a field with its default": (b"\x04\x08\x00\x62\x00", "need not be"),
    "a field twice": (b"\x06\x08\x01\x08\x02\x62\x00", "twice"),
    "an id without a result": (b"\x02\x08\x01", r"a reply with \['id'\]"),
    "a result without an id": (b"\x02\x62\x00", r"a reply with \['ping'\]"),
    "two results": (b"\x06\x08\x01\x62\x00\x3a\x00", "a reply with"),
    "a push with an id": (b"\x06\x08\x01\x22\x02\x2a\x00", "a push with"),
    "a push of nothing": (b"\x05\x22\x03\x12\x01a", r"a push with \[\]"),
    "a push of two kinds": (b"\x06\x22\x04\x2a\x00\x32\x00", r"a push with \['join', 'leave'\]"),
}


@pytest.mark.parametrize("kind", BAD)
def test_the_reader_refuses_what_an_sdk_may_not_understand(kind: str):
    payload, why = BAD[kind]
    with pytest.raises(BadFrame, match=why):
        replies_of(payload)


def test_the_reader_reads_several_replies_and_pings():
    replies = [
        client_pb2.Reply(id=1, ping={}),
        client_pb2.Reply(),
        client_pb2.Reply(push={"channel": "a", "pub": {"data": b"x" * 300}}),
    ]
    assert replies_of(sized(*replies)) == replies


# --- what the server sends -------------------------------------------------------------------


class Listener:
    """A client that keeps every message, and reads it at once."""

    def __init__(self) -> None:
        self.messages: list[list[Any]] = []
        self.wire: Wire
        self._bad: BadFrame | None = None
        self._numbers = iter(range(1, 1000))

    def on_message(self, opcode: int, payload: bytes) -> None:
        try:
            self.messages.append(replies_of(payload if opcode == BINARY else "text"))
        except BadFrame as error:
            self._bad = error

    @property
    def replies(self) -> list[Any]:
        if self._bad is not None:
            raise self._bad
        return [reply for message in self.messages for reply in message]

    def say(self, *commands: Any) -> None:
        """Send commands in one message, as SDKs may; those for Dart and Swift send each alone."""
        self.wire.send(frame(BINARY, sized(*commands)))

    def numbered(self, name: str, /, **params: Any) -> Any:
        return command(next(self._numbers), name, **params)

    async def reply(self, number: int) -> Any:
        await until(lambda: any(one.id == number for one in self.replies), 10, f"reply {number}")
        return next(one for one in self.replies if one.id == number)

    async def ask(self, name: str, /, **params: Any) -> Any:
        sent = self.numbered(name, **params)
        self.say(sent)
        return await self.reply(sent.id)

    async def pushed(self, kind: str, fits: Callable[[Any], bool] = lambda push: True) -> Any:
        def found() -> list[Any]:
            pushes = [one.push for one in self.replies if one.HasField("push")]
            return [push for push in pushes if push.HasField(kind) and fits(push)]

        await until(lambda: bool(found()), 10, f"a push {kind}")
        return found()[0]


@asynccontextmanager
async def listening(cluster: Cluster) -> AsyncIterator[Listener]:
    listener = Listener()
    subprotocol = {"Sec-WebSocket-Protocol": "centrifuge-protobuf"}
    listener.wire = await open_wire(
        cluster.port, headers=subprotocol, on_message=listener.on_message
    )
    try:
        yield listener
    finally:
        listener.wire.abort()


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[cent.AsyncClient]:
    client = cent.AsyncClient(f"http://127.0.0.1:{cluster.port}/api", API_KEY)
    yield client
    await client.close()


class Names:
    """A user and channels that no other test has."""

    def __init__(self) -> None:
        unique = str(uuid.uuid4())
        self.user, self.channel, self.server = unique, f"all:{unique}", f"server:{unique}"
        self.made = f"server:made-{unique}"

    def token(self, **claims: Any) -> str:
        return token(key=KEY, sub=self.user, exp=int(time.time()) + 600, **claims)

    def connection_token(self) -> str:
        subs = {self.server: {"data": {"s": 1}}}
        return self.token(info={"n": "é"}, subs=subs)

    def subscription_token(self) -> str:
        return self.token(channel=self.channel, info=[1])


async def enter(client: Listener, names: Names, **position: Any) -> None:
    """Connect and subscribe with one message; the position is of an earlier subscription."""
    connect = client.numbered("connect", token=names.connection_token(), name="dart")
    subscribe = client.numbered(
        "subscribe",
        channel=names.channel,
        token=names.subscription_token(),
        delta="fossil",
        **position,
    )
    client.say(connect, subscribe)
    assert (await client.reply(connect.id)).connect.client
    assert (await client.reply(subscribe.id)).subscribe.epoch


async def talk(client: Listener, names: Names) -> None:
    """Every command, and those that are refused."""
    assert (await client.ask("publish", channel=names.channel, data=b"[1]")).HasField("publish")
    await client.pushed("pub", lambda push: push.pub.data == b"[1]")
    assert len((await client.ask("history", channel=names.channel, limit=9)).history.publications)
    assert (await client.ask("presence", channel=names.channel)).presence.presence
    assert (await client.ask("presence_stats", channel=names.channel)).presence_stats.num_clients
    assert (await client.ask("rpc", method="double", data=b'{"n":21}')).rpc.data == b'{"twice":42}'
    assert (await client.ask("rpc", method="busy", data=b"{}")).error.temporary
    assert (await client.ask("history", channel="nowhere:x")).error.code == 102
    refresh = await client.ask("refresh", token=names.connection_token())
    assert refresh.refresh.expires
    again = names.subscription_token()
    assert (await client.ask("sub_refresh", channel=names.channel, token=again)).sub_refresh.ttl
    client.say(client_pb2.Command(send={"data": b'"hello"'}))
    await client.pushed("message")


async def hear(client: Listener, names: Names, api: cent.AsyncClient) -> None:
    """What the server says by itself."""
    for number in range(3):
        data = {"n": number, **LONG}
        request = cent.PublishRequest(channel=names.channel, data=data, tags={"kind": "goal"})
        await api.publish(request)
    await client.pushed("pub", lambda push: push.pub.delta)
    await api.publish(cent.PublishRequest(channel=names.made, data=1))
    await api.subscribe(cent.SubscribeRequest(user=names.user, channel=names.made, data={"d": 1}))
    await client.pushed("subscribe", lambda push: push.channel == names.made)
    await api.unsubscribe(cent.UnsubscribeRequest(user=names.user, channel=names.made))
    await client.pushed("unsubscribe", lambda push: push.channel == names.made)
    expiry = int(time.time()) + 900
    await api.refresh(cent.RefreshRequest(user=names.user, expire_at=expiry))
    await client.pushed("refresh")


async def recover(client: Listener, names: Names) -> None:
    """Come back with a position, beside a member that leaves again."""
    top = (await client.ask("history", channel=names.channel)).history
    assert top.offset > 2
    position = {"recover": True, "epoch": top.epoch, "offset": 1}
    unsubscribed = await client.ask("unsubscribe", channel=names.channel)
    assert unsubscribed.HasField("unsubscribe")
    back = await client.ask(
        "subscribe",
        channel=names.channel,
        token=names.subscription_token(),
        delta="fossil",
        **position,
    )
    assert back.subscribe.recovered
    assert len(back.subscribe.publications) == top.offset - 1


def sent_fields() -> set[str]:
    """Every field of a reply that the schema of the server has, named as the SDK's classes name its message."""
    names, todo = set(), [("Reply", client_pb2.Reply.DESCRIPTOR)]
    seen = set()
    while todo:
        ours, theirs = todo.pop()
        if ours in seen:
            continue
        seen.add(ours)
        for field in MESSAGES[ours]:
            other = theirs.fields_by_name[field.name]
            names.add(f"{theirs.name}.{field.name}")
            if field.is_message:
                kind = other.message_type
                kind = kind.fields_by_name["value"].message_type if field.is_map else kind
                todo.append((field.type, kind))
    return names


async def test_every_field_that_the_server_sends_is_one_that_the_sdks_know(
    cluster: Cluster, api: cent.AsyncClient
):
    names = Names()
    async with listening(cluster) as client, listening(cluster) as other:
        await enter(client, names)
        await enter(other, names)
        await client.pushed("join", lambda push: push.channel == names.channel)
        await talk(client, names)
        await hear(client, names, api)
        await recover(other, names)
        await client.pushed("leave", lambda push: push.channel == names.channel)
        replies = client.replies + other.replies
    seen = {name for reply in replies for name in fields_of(reply)}
    assert sent_fields() - seen == NEVER_SENT


@pytest.mark.parametrize("is_together", [True, False], ids=["one message", "many messages"])
async def test_commands_are_answered_in_order_whether_they_come_in_one_message_or_in_many(
    cluster: Cluster, is_together: bool
):
    async with listening(cluster) as client:
        await client.ask("connect", token=Names().connection_token())
        none = {"channel": "not:mine", "token": "t"}
        asked = [client.numbered("sub_refresh", **none) for _ in range(20)]
        if is_together:
            client.say(*asked)
        else:
            for one in asked:
                client.say(one)
        await client.reply(asked[-1].id)
        refused = [one.id for one in client.replies if one.error.code == 103]
        assert refused == [one.id for one in asked]


async def test_joins_that_come_at_once_are_several_replies_of_one_message(cluster: Cluster):
    names, crowd_size, rounds = Names(), 20, 20
    async with AsyncExitStack() as stack:
        watcher, *crowd = [
            await stack.enter_async_context(listening(cluster)) for _ in range(crowd_size + 1)
        ]
        await enter(watcher, names)
        for client in crowd:
            await client.ask("connect", token=names.connection_token())
        # How many meet in one turn of a worker is up to the machine: again, until some do.
        for _ in range(rounds):
            channel = {"channel": names.channel}
            subscribe = {**channel, "token": names.subscription_token()}
            await asyncio.gather(*(client.ask("subscribe", **subscribe) for client in crowd))
            await asyncio.gather(*(client.ask("unsubscribe", **channel) for client in crowd))
            if max(map(len, watcher.messages)) > 1:
                break
        together = max(watcher.messages, key=len)
        assert len(together) > 1
        assert all(one.push.HasField("join") or one.push.HasField("leave") for one in together)
