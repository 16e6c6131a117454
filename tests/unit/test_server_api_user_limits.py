"""What the server API asks for holds: the limit of channels, and an expiry that nobody renews."""

from __future__ import annotations

import dataclasses
import time

from tests.harness.waiting import until
from tests.unit.api_workers import api_config, call, connected, push, two_workers
from tests.unit.local_worker import ask, changed


async def test_a_backend_subscribes_a_connection_to_no_more_channels_than_its_limit():
    config = api_config()
    client = dataclasses.replace(config.client, channel_limit=2)
    async with two_workers(changed(config, client=client)) as (one, two):
        caller, name, _ = await connected(two)
        for channel in ("a", "b"):
            await ask(caller, "subscribe", channel=channel)
        await call(one, "subscribe", user="", client=name, channel="news")
        await until(lambda: two.counters.client_errors["106"] == 1, 10, "it is refused")
        assert set(two.node.hub.channels) == {"a", "b"}
        await ask(caller, "unsubscribe", channel="b")
        await call(one, "subscribe", user="", client=name, channel="news")
        assert (await push(caller, "subscribe"))["channel"] == "news"
        assert set(two.node.hub.channels) == {"a", "news"}


async def test_a_connection_that_a_backend_gave_an_expiry_is_closed_when_nobody_renews_it():
    config = api_config()
    client = dataclasses.replace(config.client, expired_close_delay=0.0)
    async with two_workers(changed(config, client=client)) as (one, two):
        caller, name, _ = await connected(two)
        ends = int(time.time()) + 2
        await call(one, "refresh", user="", client=name, expire_at=ends)
        assert (await push(caller, "refresh"))["refresh"]["ttl"] <= 2
        assert await caller.closed() == (3005, "connection expired")
        assert time.time() > ends
