"""Streams with the official clients: what they recover, filter and page, on two workers behind nginx."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import cent
import pytest

from tests.conformance.sdk_clients import SDKS, Refused, Sdk
from tests.harness.cluster import Cluster
from tests.harness.proxy import FaultProxy

KEY = "a-key-that-is-long-enough-for-everything"
HISTORY = {"history_size": 10, "history_ttl": "60s", "force_recovery": True}
CONFIG = {
    "http_api": {"key": KEY},
    "client": {"history_max_publication_limit": 6},
    "channel": {
        "namespaces": [
            {"name": "kept", **HISTORY},
            {"name": "cache", **HISTORY, "force_recovery_mode": "cache"},
            {
                "name": "auto",
                **HISTORY,
                "force_recovery_mode": "cache",
                "auto_cache_recover": True,
            },
            {"name": "tagged", **HISTORY, "allow_tags_filter": True},
            {
                "name": "delta",
                **HISTORY,
                "allowed_delta_types": ["fossil"],
                "delta_publish": True,
            },
            {"name": "asked", **HISTORY, "allowed_delta_types": ["fossil"]},
        ]
    },
}
NOWHERE = {"offset": 0, "epoch": ""}
GOALS = {"key": "kind", "cmp": "eq", "val": "goal"}


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[cent.AsyncClient]:
    client = cent.AsyncClient(f"http://127.0.0.1:{cluster.port}/api", KEY)
    yield client
    await client.close()


@pytest.fixture
def name() -> str:
    """The part of a channel after its namespace: no test has used it."""
    return str(uuid.uuid4())


async def publish(api: cent.AsyncClient, channel: str, *values: Any, kind: str = "") -> None:
    tags = {"kind": kind} if kind else None
    for value in values:
        await api.publish(cent.PublishRequest(channel=channel, data=value, tags=tags))


async def subscribed(
    sdk: Sdk, url: str, channel: str, client: str = "ann", **options: Any
) -> dict[str, Any]:
    await sdk.do("connect", client, url=url)
    await sdk.events.seen("connected", client=client)
    await sdk.do("subscribe", client, channel=channel, options=options)
    return await sdk.events.seen("subscribed", client=client, channel=channel)


def received(sdk: Sdk, client: str = "ann") -> list[Any]:
    return [event["data"] for event in sdk.events.of("publication", client=client)]


# --- cache recovery -----------------------------------------------------------------------------


async def test_a_cache_gives_the_newest_publication_to_a_client_without_a_position(
    sdk: Sdk, url: str, api: cent.AsyncClient, name: str
):
    channel = f"cache:{name}"
    await publish(api, channel, 1, 2, 3)
    # The Python SDK has no `since`: its `get_state` gives the empty position.
    first = await subscribed(sdk, url, channel, states=[NOWHERE])
    assert (first["wasRecovering"], first["recovered"]) == (True, True)
    await sdk.events.seen("publication", data=3)
    await publish(api, channel, 4)
    await sdk.events.seen("publication", data=4)
    assert received(sdk) == [3, 4]


async def test_a_client_that_comes_back_gets_only_the_newest_of_a_cache(
    sdk: Sdk, url: str, api: cent.AsyncClient, cluster: Cluster, name: str
):
    channel = f"cache:{name}"
    async with FaultProxy(cluster.port) as proxy:
        through = f"ws://127.0.0.1:{proxy.port}/connection/websocket"
        await subscribed(sdk, through, channel)
        await publish(api, channel, 1)
        await sdk.events.seen("publication", data=1)
        await proxy.cut()
        # More than the stream keeps: a recovery of the stream would fail.
        await publish(api, channel, *range(2, 15))
        await proxy.heal()
        again = await sdk.events.seen("subscribed", times=2, channel=channel)
        assert (again["wasRecovering"], again["recovered"]) == (True, True)
        await publish(api, channel, 15)
        await sdk.events.seen("publication", data=15)
    assert received(sdk) == [1, 14, 15]


async def test_a_namespace_may_recover_its_cache_at_every_subscribe(
    sdk: Sdk, url: str, api: cent.AsyncClient, name: str
):
    channel = f"auto:{name}"
    await publish(api, channel, 1, 2)
    await subscribed(sdk, url, channel)
    await sdk.events.seen("publication", data=2)
    await sdk.do("unsubscribe", "ann", channel=channel)
    await publish(api, channel, 3)
    await sdk.do("resubscribe", "ann", channel=channel)
    await sdk.events.seen("publication", data=3)
    assert received(sdk) == [2, 3]


async def test_an_empty_cache_asks_an_application_for_its_state(
    sdk: Sdk, url: str, api: cent.AsyncClient, name: str
):
    channel = f"cache:{name}"
    await sdk.do("connect", "ann", url=url)
    await sdk.do("subscribe", "ann", channel=channel, options={"states": [NOWHERE]})
    await sdk.events.seen("state", times=2, channel=channel)
    await publish(api, channel, 1)
    await sdk.events.seen("subscribed", channel=channel)
    await sdk.events.seen("publication", data=1)


# --- reject unrecovered -------------------------------------------------------------------------


async def test_a_position_that_is_lost_makes_the_sdk_load_its_state_again(
    sdk: Sdk, url: str, api: cent.AsyncClient, name: str
):
    channel = f"kept:{name}"
    await publish(api, channel, *range(1, 13))
    await sdk.do("connect", "bob", url=url)
    epoch = (await sdk.do("history", "bob", channel=channel, limit=0))["epoch"]
    states = [{"offset": 1, "epoch": epoch}, {"offset": 10, "epoch": epoch}]
    back = await subscribed(sdk, url, channel, states=states)
    assert (back["wasRecovering"], back["recovered"]) == (True, True)
    await sdk.events.seen("publication", data=12)
    assert received(sdk) == [11, 12]
    assert len(sdk.events.of("state", channel=channel)) == 2


# --- tags filter --------------------------------------------------------------------------------


async def test_a_filter_selects_publications_live_and_in_a_recovery(
    sdk: Sdk, url: str, api: cent.AsyncClient, cluster: Cluster, name: str
):
    channel = f"tagged:{name}"
    async with FaultProxy(cluster.port) as proxy:
        through = f"ws://127.0.0.1:{proxy.port}/connection/websocket"
        await subscribed(sdk, through, channel, tagsFilter=GOALS)
        await subscribed(sdk, url, channel, "bob")
        await publish(api, channel, 1, kind="goal")
        await publish(api, channel, 2, kind="foul")
        await publish(api, channel, 3)
        await publish(api, channel, 4, kind="goal")
        await sdk.events.seen("publication", client="ann", data=4)
        await proxy.cut()
        await publish(api, channel, 5, kind="goal")
        await publish(api, channel, 6, kind="foul")
        await proxy.heal()
        again = await sdk.events.seen("subscribed", times=2, client="ann")
        assert (again["wasRecovering"], again["recovered"]) == (True, True)
        await publish(api, channel, 7, kind="goal")
        await sdk.events.seen("publication", client="ann", data=7)
        await sdk.events.seen("publication", client="bob", data=7)
    assert received(sdk) == [1, 4, 5, 7]
    assert received(sdk, "bob") == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("space", "node"), [("kept", GOALS), ("tagged", {"key": "kind", "cmp": "like", "val": "x"})]
)
async def test_a_filter_that_is_not_allowed_or_malformed_ends_the_subscription_with_107(
    sdk: Sdk, url: str, name: str, space: str, node: dict[str, str]
):
    channel = f"{space}:{name}"
    await sdk.do("connect", "ann", url=url)
    await sdk.do("subscribe", "ann", channel=channel, options={"tagsFilter": node})
    assert (await sdk.events.seen("unsubscribed", channel=channel))["code"] == 107


# --- deltas -------------------------------------------------------------------------------------


def table(number: int) -> dict[str, Any]:
    """A state that changes in few places, with characters of several bytes."""
    rows = [{"id": row, "text": "grüße 😀"} for row in range(30)]
    rows[number % 30]["text"] = f"{number}é"
    return {"n": number, "rows": rows}


async def test_deltas_give_what_was_published_live_and_in_a_recovery(
    sdk: Sdk, url: str, api: cent.AsyncClient, cluster: Cluster, name: str
):
    channel = f"delta:{name}"
    async with FaultProxy(cluster.port) as proxy:
        through = f"ws://127.0.0.1:{proxy.port}/connection/websocket"
        await subscribed(sdk, through, channel, delta="fossil")
        await subscribed(sdk, url, channel, "bob")
        await publish(api, channel, *map(table, range(1, 5)))
        await sdk.events.seen("publication", client="ann", data=table(4))
        await proxy.cut()
        await publish(api, channel, *map(table, range(5, 9)))
        await proxy.heal()
        again = await sdk.events.seen("subscribed", times=2, client="ann")
        assert (again["wasRecovering"], again["recovered"]) == (True, True)
        await publish(api, channel, *map(table, range(9, 11)))
        await sdk.events.seen("publication", client="ann", data=table(10))
        await sdk.events.seen("publication", client="bob", data=table(10))
    assert received(sdk) == received(sdk, "bob") == [table(n) for n in range(1, 11)]


class DeltaPublish(cent.PublishRequest):
    """cent 5.2 does not have this field of Centrifugo 6 yet."""

    delta: bool


async def test_a_publisher_may_ask_for_a_delta(url: str, api: cent.AsyncClient, name: str):
    channel = f"asked:{name}"
    async with SDKS["js"]() as sdk:
        await subscribed(sdk, url, channel, delta="fossil")
        for number in range(1, 5):
            request = DeltaPublish(channel=channel, data=table(number), delta=number > 2)
            await api.publish(request)
        await sdk.events.seen("publication", data=table(4))
        assert received(sdk) == [table(n) for n in range(1, 5)]
        assert (await sdk.do("deltas", "ann", channel=channel))["deltas"] == 2


# --- history ------------------------------------------------------------------------------------


async def test_history_is_paged_both_ways_over_a_trimmed_stream(
    sdk: Sdk, url: str, api: cent.AsyncClient, name: str
):
    channel = f"kept:{name}"
    await publish(api, channel, *range(1, 14))
    await sdk.do("connect", "ann", url=url)
    epoch = (await sdk.do("history", "ann", channel=channel, limit=0))["epoch"]

    async def page(**how: Any) -> list[int]:
        result = await sdk.do("history", "ann", channel=channel, **how)
        assert (result["offset"], result["epoch"]) == (13, epoch)
        return [publication["offset"] for publication in result["publications"]]

    for is_reverse, wanted, at in (
        (False, list(range(4, 14)), 0),
        (True, list(range(13, 3, -1)), 14),
    ):
        found: list[int] = []
        while True:
            since = {"offset": at, "epoch": epoch}
            offsets = await page(limit=4, since=since, reverse=is_reverse)
            if not offsets:
                break
            found += offsets
            at = offsets[-1]
        assert found == wanted
    assert await page(limit=-1) == [4, 5, 6, 7, 8, 9]
    assert await page(limit=-1, reverse=True) == [13, 12, 11, 10, 9, 8]
    assert await page(limit=3, since={"offset": 1, "epoch": ""}) == [4, 5, 6]
    with pytest.raises(Refused) as refused:
        await page(limit=3, since={"offset": 0, "epoch": epoch}, reverse=True)
    assert refused.value.code == 107
