"""What the SDKs for Dart and Swift send is played back: these clients are not the SDKs, which never connected here.

No toolchain for either can be had where the tests run. Their sources can be read: the versions that have `getState`
and filters on tags, and of Dart's transport an earlier one. They say:

- Each command is a binary message of its own, also the connect; subscribes follow its reply. A pong is one byte 0.
- Dart numbers the commands of each connection from 1, Swift those of a client. Dart's Protobuf library writes a
  field that was set to its default; so `version`, `positioned`, `reverse` and others are on the wire, and empty.
- Subscribes have `flag` 1, channel compaction, which this server does not know and ignores; 3 with `getState`.
- A message may have several replies; one without an id and a push is a ping, answered if the connect said so.
- Closes and disconnect pushes of 3500-3999 and 4500-4999 are the last, after all others they connect again. An
  unsubscribe push of 2500 and above is a subscribe on the same connection. Error 109 is a new token, and no end.
- A delta without the publication that it is made from ends an application: it is never the first.

`played_wire`, `played_commands` and `played_sdks` do that, over nginx and two workers. What they cannot show: whether
these libraries do what their sources seem to say, `URLSessionWebSocketTask`, TLS, and Dart in a browser.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import cent
import orjson
import pytest
import redis

from tests.conformance.played_commands import Fields
from tests.conformance.played_sdks import Player, Subscription, playing
from tests.conformance.played_wire import HANDSHAKES, KINDS, Kind, shake_hands
from tests.harness.cluster import Cluster
from tests.harness.proxy import FaultProxy
from tests.unit.test_auth import token

KEY = "k" * 32
API_KEY = "a-key-that-is-long-enough-for-everything"
HISTORY = {"history_size": 10, "history_ttl": "60s"}
RECOVERED = {**HISTORY, "force_recovery": True, "allow_subscribe_for_client": True}
READERS = {"allow_history_for_subscriber": True, "allow_presence_for_subscriber": True}
CONFIG: dict[str, Any] = {
    "app": {"target": "application:app"},
    "http_api": {"key": API_KEY},
    "client": {
        "insecure": False,
        "token": {"hmac_secret_key": KEY},
        # Short enough that a test sees several pings, and an idle channel's new epoch.
        "ping_interval": "2s",
        "pong_timeout": "1500ms",
        "channel_position_check_delay": "500ms",
        "expired_close_delay": "5s",
        "expired_sub_close_delay": "5s",
    },
    "channel": {
        "namespaces": [
            {
                "name": "all",
                **RECOVERED,
                **READERS,
                "presence": True,
                "join_leave": True,
                "allow_publish_for_subscriber": True,
            },
            {
                "name": "asked",
                **HISTORY,
                **READERS,
                "allow_recovery": True,
                "allow_positioning": True,
                "join_leave": True,
                "presence": True,
                "allow_subscribe_for_client": True,
            },
            {
                "name": "delta",
                **RECOVERED,
                "allowed_delta_types": ["fossil"],
                "delta_publish": True,
            },
            {"name": "tagged", **RECOVERED, "allow_tags_filter": True},
            {"name": "plain"},
        ]
    },
}
APPLICATION = """
import cluster

app = cluster.Application()


@app.rpc("double")
def double(client, data):
    return {"twice": 2 * data["n"]}


@app.rpc("")
def nameless(client, data):
    return data


@app.message
def echo(client, data):
    client.send(data)
"""
LONG = '{{"text":"{}","n":{}}}'
BYTES = b"\x00\xff not JSON \x80"


# --- clients -------------------------------------------------------------------------------------


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[cent.AsyncClient]:
    client = cent.AsyncClient(f"http://127.0.0.1:{cluster.port}/api", API_KEY)
    yield client
    await client.close()


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each SDK in turn."""
    return KINDS[request.param]


class Names:
    """A user and channels that no other test has."""

    def __init__(self) -> None:
        self.user = str(uuid.uuid4())

    def channel(self, namespace: str) -> str:
        return f"{namespace}:{self.user}" if namespace else self.user

    def token(self, seconds: int = 600, **claims: Any) -> str:
        return token(key=KEY, sub=self.user, exp=int(time.time()) + seconds, **claims)


@pytest.fixture
def names() -> Names:
    return Names()


def player(kind: Kind, port: int, names: Names, **claims: Any) -> Player:
    return Player(kind, port, lambda: names.token(**claims))


async def publish(api: cent.AsyncClient, channel: str, *values: Any, **options: Any) -> None:
    for value in values:
        await api.publish(cent.PublishRequest(channel=channel, data=value, **options))


def received(client: Player, channel: str) -> list[tuple[int, bytes]]:
    return [
        (one["offset"], one["data"]) for one in client.events.of("publication", channel=channel)
    ]


async def subscribed(client: Player, subscription: Subscription, times: int = 1) -> dict[str, Any]:
    """Subscribe, and wait for the reply."""
    await client.events.seen("connected")
    client.subscribe(subscription)
    return await client.events.seen("subscribed", times, channel=subscription.channel)


# --- handshakes and pings ------------------------------------------------------------------------


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_a_handshake_is_answered_as_the_sdk_wants_it(cluster: Cluster, name: str):
    lines, path, subprotocol = HANDSHAKES[name]
    reader, writer = await asyncio.open_connection("127.0.0.1", cluster.port)
    try:
        async with asyncio.timeout(10):
            headers = await shake_hands(reader, writer, lines, path)
    finally:
        writer.close()
    assert headers.get("sec-websocket-protocol") == subprotocol


async def test_a_client_that_answers_pings_stays_connected_and_one_that_does_not_comes_back(
    cluster: Cluster, kind: Kind, names: Names
):
    mute = player(kind, cluster.port, names)
    mute.answers_pings = False
    async with playing(player(kind, cluster.port, names)) as client, playing(mute):
        assert (await client.events.seen("connected"))["ping"] == 2
        assert (await mute.events.seen("closed"))["code"] == 3012
        await mute.events.seen("connected", times=2)
        await client.events.seen("ping", times=2)
        assert (await client.ask("rpc", ("method", ""), ("data", b"[1]"))).rpc.data == b"[1]"
        assert client.events.of("closed") == []


# --- streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("namespace", ["all", "asked"])
async def test_what_was_published_during_a_cut_is_recovered(
    cluster: Cluster, api: cent.AsyncClient, kind: Kind, names: Names, namespace: str
):
    channel = names.channel(namespace)
    async with (
        FaultProxy(cluster.port) as proxy,
        playing(player(kind, proxy.port, names)) as client,
    ):
        first = await subscribed(client, Subscription(channel, asks=namespace == "asked"))
        assert first["recoverable"]
        assert first["positioned"]
        await publish(api, channel, 1)
        await client.events.seen("publication", channel=channel)
        await proxy.cut()
        await client.events.seen("closed")
        await publish(api, channel, 2, 3)
        await proxy.heal()
        again = await client.events.seen("subscribed", times=2, channel=channel)
        assert (again["was_recovering"], again["recovered"]) == (True, True)
        await publish(api, channel, 4)
        await client.events.seen("publication", times=4, channel=channel)
        assert received(client, channel) == [(1, b"1"), (2, b"2"), (3, b"3"), (4, b"4")]


async def test_commands_are_answered(cluster: Cluster, kind: Kind, names: Names):
    channel = names.channel("all")
    where = ("channel", channel)
    async with playing(player(kind, cluster.port, names)) as client:
        await subscribed(client, Subscription(channel, asks=True))
        await client.events.seen("join", channel=channel)
        for data in (b'{"n":1}', BYTES):
            assert (await client.ask("publish", where, ("data", data))).HasField("publish")
        await client.events.seen("publication", times=2, channel=channel)
        assert received(client, channel) == [(1, b'{"n":1}'), (2, BYTES)]
        top = (await client.ask("history", where, ("limit", 0), ("reverse", False))).history
        assert (top.offset, len(top.publications)) == (2, 0)
        whole = (await client.ask("history", where, ("limit", -1), ("reverse", True))).history
        assert [one.offset for one in whole.publications] == [2, 1]
        since = ("since", [("offset", 1), ("epoch", top.epoch)])
        rest = (await client.ask("history", where, ("limit", 9), since, ("reverse", False))).history
        assert [bytes(one.data) for one in rest.publications] == [BYTES]
        since = ("since", [("offset", 1), ("epoch", "else")])
        gone = await client.ask("history", where, ("limit", 9), since, ("reverse", False))
        assert gone.error.code == 112
        assert [
            one.user for one in (await client.ask("presence", where)).presence.presence.values()
        ] == [names.user]
        assert (await client.ask("presence_stats", where)).presence_stats.num_clients == 1
        double = await client.ask("rpc", ("method", "double"), ("data", b'{"n":21}'))
        assert double.rpc.data == b'{"twice":42}'
        assert (await client.ask("rpc", ("method", "none"), ("data", b"1"))).error.code == 104
        assert (await client.ask("publish", ("channel", "no:x"), ("data", b"1"))).error.code == 102
        client.say("send", [("data", BYTES)])
        assert (await client.events.seen("message"))["data"] == BYTES
        assert (await client.ask("unsubscribe", where)).HasField("unsubscribe")
        assert client.events.of("closed") == []


async def test_deltas_make_what_was_published_before_and_after_a_cut(
    cluster: Cluster, api: cent.AsyncClient, kind: Kind, names: Names
):
    channel = names.channel("delta")
    texts = [LONG.format("grüße 😀 " * 40, number) for number in range(8)]
    parts = [texts[:3], texts[3:6], texts[6:]]
    async with (
        FaultProxy(cluster.port) as proxy,
        playing(player(kind, proxy.port, names)) as client,
    ):
        subscription = Subscription(channel, has_delta=True)
        assert (await subscribed(client, subscription))["delta"]
        await publish(api, channel, *map(orjson.loads, parts[0]))
        await client.events.seen("publication", times=3, channel=channel)
        await proxy.cut()
        await client.events.seen("closed")
        await publish(api, channel, *map(orjson.loads, parts[1]))
        await proxy.heal()
        await client.events.seen("subscribed", channel=channel, recovered=True)
        await publish(api, channel, *map(orjson.loads, parts[2]))
        await client.events.seen("publication", times=8, channel=channel)
        assert [orjson.loads(data) for _, data in received(client, channel)] == list(
            map(orjson.loads, texts)
        )
        assert subscription.deltas >= 5


async def test_a_filter_on_tags_is_understood(
    cluster: Cluster, api: cent.AsyncClient, kind: Kind, names: Names
):
    channel = names.channel("tagged")
    leaf: Fields = [("key", "kind"), ("cmp", "in"), ("vals", "goal")]
    tags: Fields = [("op", "not"), ("nodes", [("op", "not"), ("nodes", leaf)])]
    async with playing(player(kind, cluster.port, names)) as client:
        await subscribed(client, Subscription(channel, tags=tags))
        await publish(api, channel, 1, tags={"kind": "foul"})
        await publish(api, channel, 2, tags={"kind": "goal"})
        await client.events.seen("publication", channel=channel)
        assert received(client, channel) == [(2, b"2")]


async def test_a_position_that_is_gone_makes_the_application_load_its_state(
    cluster: Cluster, api: cent.AsyncClient, kind: Kind, names: Names
):
    channel = names.channel("all")
    await publish(api, channel, 1, 2)
    top = await api.history(cent.HistoryRequest(channel=channel))
    states = iter([(1, "else"), (1, top.epoch)])
    async with playing(player(kind, cluster.port, names)) as client:
        await subscribed(client, Subscription(channel, states=lambda: next(states)))
        await client.events.seen("publication", channel=channel)
        assert [one["code"] for one in client.events.of("subscribe_error")] == [112]
        assert received(client, channel) == [(2, b"2")]


# --- tokens --------------------------------------------------------------------------------------


async def test_tokens_of_connections_and_subscriptions_are_refreshed(
    cluster: Cluster, kind: Kind, names: Names
):
    channel = f"${names.user}"
    async with playing(player(kind, cluster.port, names, seconds=2)) as client:
        own = Subscription(channel, tokens=lambda: names.token(2, channel=channel))
        await subscribed(client, own)
        # So many are longer than the first tokens would have lasted.
        await client.events.seen("refreshed", times=3)
        await client.events.seen("sub_refreshed", times=3)
        told = client.events.of("refreshed") + client.events.of("sub_refreshed")
        assert {one["error"] for one in told} == {0}
        assert client.events.of("closed") + client.events.of("unsubscribed") == []


async def test_expired_tokens_are_replaced(cluster: Cluster, kind: Kind, names: Names):
    channel = f"${names.user}"
    expired = iter([-60, 600])
    client = Player(kind, cluster.port, lambda: names.token(next(expired)))
    async with playing(client):
        assert (await client.events.seen("closed"))["code"] == 109
        ages = iter([-60, 600])
        own = Subscription(channel, tokens=lambda: names.token(next(ages), channel=channel))
        await subscribed(client, own)
        assert [one["code"] for one in client.events.of("subscribe_error")] == [109]
        assert client.events.of("disconnected") == []


async def test_a_token_that_is_none_is_the_last(cluster: Cluster, kind: Kind):
    async with playing(Player(kind, cluster.port, lambda: "none")) as client:
        assert (await client.events.seen("disconnected"))["code"] == 3500


# --- the server's part ---------------------------------------------------------------------------


async def test_channels_of_the_token_are_in_the_reply_and_recovered(
    cluster: Cluster, api: cent.AsyncClient, kind: Kind, names: Names
):
    channel, made, kept = names.channel("all"), names.channel("asked"), names.channel("plain")
    claims = {"subs": {channel: {"data": {"s": 1}}}}
    async with (
        FaultProxy(cluster.port) as proxy,
        playing(player(kind, proxy.port, names, **claims)) as client,
    ):
        await client.events.seen("connected")
        await publish(api, channel, 1)
        await client.events.seen("publication", channel=channel)
        await api.subscribe(cent.SubscribeRequest(user=names.user, channel=made))
        await client.events.seen("server_subscribed", channel=made)
        await api.unsubscribe(cent.UnsubscribeRequest(user=names.user, channel=made))
        await client.events.seen("unsubscribed", channel=made, code=2000)
        # Also this one is in the next connect, without a position: it is not the token's.
        await api.subscribe(cent.SubscribeRequest(user=names.user, channel=kept))
        await client.events.seen("server_subscribed", channel=kept)
        await proxy.cut()
        await client.events.seen("closed")
        await publish(api, channel, 2)
        await proxy.heal()
        await client.events.seen("connected", times=2)
        again = client.events.of("server_subscribed", channel=channel)[-1]
        assert (again["was_recovering"], again["recovered"]) == (True, True)
        assert received(client, channel) == [(1, b"1"), (2, b"2")]
        assert len(client.events.of("server_unsubscribed", channel=kept)) == 1


async def closed_with(code: int, cluster: Cluster, api: cent.AsyncClient, kind: Kind) -> None:
    """What a client does that the server API closes with this code."""
    names = Names()
    channel = names.channel("all")
    async with playing(player(kind, cluster.port, names)) as client:
        await subscribed(client, Subscription(channel))
        why = cent.Disconnect(code=code, reason="because of it")
        await api.disconnect(cent.DisconnectRequest(user=names.user, disconnect=why))
        closed = await client.events.seen("closed")
        assert (closed["code"], closed["reason"]) == (code, "because of it")
        if code in (3503, 4500):
            await client.events.seen("disconnected", code=code)
            return
        again = await client.events.seen("subscribed", times=2, channel=channel)
        # After 3014 the client knows that its position is void, and says so.
        assert (again["was_recovering"], again["recovered"]) == (True, code != 3014)


async def test_a_close_code_says_whether_the_client_comes_back(
    cluster: Cluster, api: cent.AsyncClient, kind: Kind
):
    codes = (3001, 3011, 3014, 4001, 3503, 4500)
    await asyncio.gather(*(closed_with(code, cluster, api, kind) for code in codes))


async def test_an_unsubscribe_of_2500_and_above_is_a_subscribe_on_the_same_connection(
    cluster: Cluster, kind: Kind, names: Names
):
    lost, late = names.channel("all"), f"${names.user}"
    async with playing(player(kind, cluster.port, names)) as client:
        ages = iter([2, 600])
        own = Subscription(late, tokens=lambda: names.token(next(ages), channel=late))
        own.is_refreshed = False
        await subscribed(client, own)
        await subscribed(client, Subscription(lost))
        await client.ask("publish", ("channel", lost), ("data", b"1"))
        forget(cluster, lost)
        await client.events.seen("unsubscribed", channel=lost, code=2500)
        again = await client.events.seen("subscribed", times=2, channel=lost)
        assert (again["was_recovering"], again["recovered"]) == (True, False)
        await client.events.seen("unsubscribed", channel=late, code=2501)
        await client.events.seen("subscribed", times=2, channel=late)
        assert client.events.of("closed") == []


def forget(cluster: Cluster, channel: str) -> None:
    """Delete the stream of a channel from the store, as a store does that has lost its memory."""
    path = cluster.directory / "data" / "run" / "valkey" / "valkey.sock"
    with redis.Redis(unix_socket_path=str(path)) as store:
        keys = list(store.scan_iter(f"*{channel}*"))
        assert keys
        store.delete(*keys)
