"""The official clients' presence, joins and leaves, over nginx and two workers."""

from __future__ import annotations

import uuid

import pytest

from tests.conformance.sdk_clients import Refused, Sdk

CONFIG = {
    "channel": {
        "namespaces": [
            {"name": "asked", "presence": True, "join_leave": True},
            {
                "name": "pushed",
                "presence": True,
                "join_leave": True,
                "force_push_join_leave": True,
            },
            {"name": "off"},
        ]
    }
}


def a_channel(namespace: str) -> str:
    return f"{namespace}:{uuid.uuid4()}"


async def enter(sdk: Sdk, url: str, name: str, channel: str, *, asks: bool = False) -> str:
    """Connect a client and subscribe it; returns its client id."""
    await sdk.do("connect", name, url=url)
    options = {"joinLeave": True} if asks else {}
    await sdk.do("subscribe", name, channel=channel, options=options)
    await sdk.events.seen("subscribed", client=name, channel=channel)
    client: str = (await sdk.events.seen("connected", client=name))["id"]
    return client


async def test_presence_and_its_numbers_are_those_of_the_moment(sdk: Sdk, url: str):
    channel = a_channel("asked")
    ann = await enter(sdk, url, "ann", channel)
    assert (await sdk.do("presence", "ann", channel=channel))["clients"] == {ann: ""}
    bob = await enter(sdk, url, "bob", channel, asks=True)
    await sdk.events.seen("join", client="bob", who=bob)
    assert (await sdk.do("presence", "ann", channel=channel))["clients"] == {ann: "", bob: ""}
    stats = await sdk.do("presence_stats", "bob", channel=channel)
    assert stats == {"clients": 2, "users": 1}
    await sdk.do("unsubscribe", "ann", channel=channel)
    await sdk.events.seen("leave", client="bob", who=ann)
    assert (await sdk.do("presence", "bob", channel=channel))["clients"] == {bob: ""}


async def test_a_client_gets_its_own_join_and_what_others_do(sdk: Sdk, url: str):
    channel = a_channel("pushed")
    ann = await enter(sdk, url, "ann", channel)
    await sdk.events.seen("join", client="ann", channel=channel, who=ann)
    bob = await enter(sdk, url, "bob", channel)
    await sdk.events.seen("join", client="bob", channel=channel, who=bob)
    await sdk.events.seen("join", client="ann", channel=channel, who=bob)
    await sdk.do("disconnect", "bob")
    await sdk.events.seen("leave", client="ann", channel=channel, who=bob)
    seen = [
        (one["event"], one["who"])
        for one in sdk.events.all
        if one["event"] in {"join", "leave"} and one["client"] == "ann"
    ]
    assert seen == [("join", ann), ("join", bob), ("leave", bob)]


async def test_joins_are_sent_to_a_client_that_asks_and_to_no_other(sdk: Sdk, url: str):
    channel = a_channel("asked")
    ann = await enter(sdk, url, "ann", channel, asks=True)
    await sdk.events.seen("join", client="ann", who=ann)
    bob = await enter(sdk, url, "bob", channel)
    await sdk.events.seen("join", client="ann", who=bob)
    await sdk.do("publish", "bob", channel=channel, data=1)
    await sdk.events.seen("publication", client="bob")
    assert sdk.events.of("join", client="bob") == []


@pytest.mark.parametrize("verb", ["presence", "presence_stats"])
async def test_presence_is_not_available_where_it_is_off(sdk: Sdk, url: str, verb: str):
    channel = a_channel("off")
    await enter(sdk, url, "ann", channel, asks=True)
    with pytest.raises(Refused) as refused:
        await sdk.do(verb, "ann", channel=channel)
    assert refused.value.code == 108
