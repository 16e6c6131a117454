"""The official clients run against the server: every command, their errors, and recovery."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from tests.conformance.sdk_clients import Refused, Sdk
from tests.harness.cluster import Cluster
from tests.harness.proxy import FaultProxy


@pytest.fixture
def channel() -> str:
    """A channel that no test has used."""
    return f"news-{uuid.uuid4()}"


async def enter(sdk: Sdk, url: str, name: str, channel: str) -> None:
    """Connect a client and subscribe it."""
    await sdk.do("connect", name, url=url)
    await sdk.do("subscribe", name, channel=channel)
    await sdk.events.seen("connected", client=name)
    await sdk.events.seen("subscribed", client=name, channel=channel)


async def test_connecting_yields_a_client_id_and_a_session(sdk: Sdk, url: str):
    await sdk.do("connect", "ann", url=url)
    connected = await sdk.events.seen("connected", client="ann")
    assert connected["id"]
    assert connected["data"]["session"]["resumed"] is False


async def test_a_session_is_resumed_with_the_sdks_own_data(sdk: Sdk, url: str):
    await sdk.do("connect", "ann", url=url)
    first = (await sdk.events.seen("connected", client="ann"))["data"]["session"]
    await sdk.do("connect", "bob", url=url, options={"data": {"session": first["id"]}})
    second = (await sdk.events.seen("connected", client="bob"))["data"]["session"]
    assert (second["id"], second["resumed"]) == (first["id"], True)


async def test_a_subscription_is_positioned_and_recoverable(sdk: Sdk, url: str, channel: str):
    await enter(sdk, url, "ann", channel)
    subscribed = await sdk.events.seen("subscribed", channel=channel)
    assert subscribed["positioned"] is True
    assert subscribed["recoverable"] is True
    assert subscribed["wasRecovering"] is False
    assert subscribed["offset"] == 0
    assert subscribed["epoch"] != ""


async def test_a_channel_without_history_has_no_position(sdk: Sdk, url: str):
    await enter(sdk, url, "ann", "plain:news")
    subscribed = await sdk.events.seen("subscribed", channel="plain:news")
    assert (subscribed["positioned"], subscribed["recoverable"]) == (False, False)


async def test_recovery_is_granted_on_request_where_it_is_allowed(sdk: Sdk, url: str, channel: str):
    await sdk.do("connect", "ann", url=url)
    asked = f"asked:{channel}"
    await sdk.do("subscribe", "ann", channel=asked, options={"recoverable": True})
    assert (await sdk.events.seen("subscribed", channel=asked))["recoverable"] is True


async def test_every_subscriber_and_the_publisher_receive_a_publication(
    sdk: Sdk, url: str, channel: str
):
    for name in ("ann", "bob"):
        await enter(sdk, url, name, channel)
    data = {"text": "grüße\n", "n": [1, 2.5, None]}
    await sdk.do("publish", "ann", channel=channel, data=data)
    ann = (await sdk.events.seen("connected", client="ann"))["id"]
    for name in ("ann", "bob"):
        publication = await sdk.events.seen("publication", client=name)
        assert publication["data"] == data
        assert publication["offset"] == 1
        assert publication["from"] == ann


async def test_unsubscribing_ends_deliveries_and_resubscribing_resumes_them(
    sdk: Sdk, url: str, channel: str
):
    await enter(sdk, url, "ann", channel)
    await sdk.do("unsubscribe", "ann", channel=channel)
    assert (await sdk.events.seen("unsubscribed", channel=channel))["code"] == 0
    await sdk.do("publish", "ann", channel=channel, data="unheard")
    await sdk.do("resubscribe", "ann", channel=channel)
    await sdk.events.seen("subscribed", times=2, channel=channel)
    await sdk.do("publish", "ann", channel=channel, data="heard")
    await sdk.events.seen("publication", channel=channel, data="heard")


async def test_history_is_read_whole_in_part_and_backwards(sdk: Sdk, url: str, channel: str):
    await sdk.do("connect", "ann", url=url)
    for number in range(1, 6):
        await sdk.do("publish", "ann", channel=channel, data=number)

    async def offsets(**how: object) -> list[int]:
        result = await sdk.do("history", "ann", channel=channel, **how)
        assert result["offset"] == 5
        return [publication["offset"] for publication in result["publications"]]

    top = await sdk.do("history", "ann", channel=channel, limit=0)
    assert top["publications"] == []
    since = {"offset": 3, "epoch": top["epoch"]}
    assert await offsets(limit=-1) == [1, 2, 3, 4, 5]
    assert await offsets(limit=2) == [1, 2]
    assert await offsets(limit=2, reverse=True) == [5, 4]
    assert await offsets(limit=9, since=since) == [4, 5]
    assert await offsets(limit=9, since=since, reverse=True) == [2, 1]
    with pytest.raises(Refused) as refused:
        await offsets(limit=9, since={"offset": 1, "epoch": "other"})
    assert refused.value.code == 112


@pytest.mark.parametrize(
    ("verb", "facts", "code"),
    [
        ("rpc", {"method": "any", "data": {}}, 108),
        ("presence", {"channel": "news"}, 108),
        ("history", {"channel": "plain:news", "limit": 1}, 108),
        ("history", {"channel": "nowhere:news", "limit": 1}, 102),
        ("publish", {"channel": "nowhere:news", "data": 1}, 102),
    ],
)
async def test_refusals_carry_the_codes_of_the_protocol(
    sdk: Sdk, url: str, verb: str, facts: dict[str, object], code: int
):
    await sdk.do("connect", "ann", url=url)
    await sdk.events.seen("connected")
    with pytest.raises(Refused) as refused:
        await sdk.do(verb, "ann", **facts)
    assert refused.value.code == code


async def test_an_unknown_namespace_ends_the_subscription_with_102(sdk: Sdk, url: str):
    await sdk.do("connect", "ann", url=url)
    await sdk.do("subscribe", "ann", channel="nowhere:news")
    assert (await sdk.events.seen("unsubscribed", channel="nowhere:news"))["code"] == 102


async def test_pings_keep_an_idle_client_and_its_pongs_keep_the_server(
    sdk: Sdk, url: str, cluster: Cluster
):
    """Without pings the SDK would close after 1.8 s, without pongs the server after 1.5 s."""
    before = (await cluster.metrics()).total("app_connections_closed_total", code="3012")
    await sdk.do("connect", "ann", url=url, options={"maxServerPingDelay": 800})
    await sdk.events.seen("connected")
    await asyncio.sleep(4.5)
    assert len(sdk.events.of("connecting")) == 1
    assert sdk.events.of("disconnected") == []
    await sdk.do("publish", "ann", channel="news", data="still here")
    after = (await cluster.metrics()).total("app_connections_closed_total", code="3012")
    assert after == before


async def test_a_forced_disconnect_is_recovered_from(
    sdk: Sdk, url: str, cluster: Cluster, channel: str
):
    async with FaultProxy(cluster.port) as proxy:
        through = f"ws://127.0.0.1:{proxy.port}/connection/websocket"
        await enter(sdk, through, "ann", channel)
        await sdk.do("connect", "bob", url=url)
        await sdk.do("publish", "bob", channel=channel, data=1)
        await sdk.events.seen("publication", client="ann", data=1)
        await proxy.cut()
        await sdk.events.seen("connecting", times=2, client="ann")
        for number in (2, 3):
            await sdk.do("publish", "bob", channel=channel, data=number)
        await proxy.heal()
        again = await sdk.events.seen("subscribed", times=2, client="ann")
        assert (again["wasRecovering"], again["recovered"]) == (True, True)
        await sdk.do("publish", "bob", channel=channel, data=4)
        await sdk.events.seen("publication", client="ann", data=4)
        got = [event["data"] for event in sdk.events.of("publication", client="ann")]
        assert got == [1, 2, 3, 4]


async def test_a_gap_longer_than_the_history_is_reported(
    sdk: Sdk, url: str, cluster: Cluster, channel: str
):
    asked = f"asked:{channel}"
    async with FaultProxy(cluster.port) as proxy:
        through = f"ws://127.0.0.1:{proxy.port}/connection/websocket"
        await sdk.do("connect", "ann", url=through)
        await sdk.do("subscribe", "ann", channel=asked, options={"recoverable": True})
        await sdk.events.seen("subscribed", client="ann")
        await proxy.cut()
        await sdk.do("connect", "bob", url=url)
        await sdk.events.seen("connected", client="bob")
        for number in range(15):
            await sdk.do("publish", "bob", channel=asked, data=number)
        await proxy.heal()
        again = await sdk.events.seen("subscribed", times=2, client="ann")
        assert (again["wasRecovering"], again["recovered"]) == (True, False)
        assert sdk.events.of("publication", client="ann") == []
