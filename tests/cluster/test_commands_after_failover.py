"""Commands of the server API after a failover that has lost earlier ones: every worker carries them out.

A replica is promoted while the old master still takes commands, and gives their offsets to the next ones.
"""

from __future__ import annotations

from pathlib import Path

import aiohttp

from tests.cluster.test_losses_nobody_saw import pair
from tests.harness.client import Client, Subscription
from tests.harness.cluster import Cluster
from tests.harness.waiting import until, until_async

KEY = "k" * 32
CHANNELS = tuple(f"c{number}" for number in range(6))
WITHIN = 30.0


class Subscribed:
    """An anonymous client in all channels, of which the server API takes one after the other from it."""

    def __init__(self, port: int) -> None:
        self.client = Client(port)
        self.subscriptions: dict[str, Subscription] = {
            name: self.client.subscribe(name, lambda *_: None) for name in CHANNELS
        }

    async def enter(self) -> None:
        await self.client.start()
        await until(lambda: self.client.is_whole, WITHIN, "it is in its channels")

    def has_lost(self, *channels: str) -> bool:
        return all(2000 in self.subscriptions[name].codes for name in channels)


async def unsubscribe(cluster: Cluster, channel: str) -> None:
    """Take a channel from all anonymous clients; again while the store does not accept it."""
    url = f"http://127.0.0.1:{cluster.worker_port(0)}/api/unsubscribe"
    request = {"user": "", "channel": channel}

    async def is_accepted() -> bool:
        async with (
            aiohttp.ClientSession() as http,
            http.post(url, json=request, headers={"X-API-Key": KEY}) as answer,
        ):
            return answer.status == 200 and (await answer.json()) == {"result": {}}

    await until_async(is_accepted, WITHIN, f"{channel} is taken away")


async def test_what_the_api_accepts_after_a_failover_is_carried_out_by_every_worker(
    tmp_path: Path,
):
    async with pair(tmp_path, config={"http_api": {"key": KEY}}) as store:
        clients = [Subscribed(store.cluster.worker_port(slot)) for slot in (0, 1)]
        for one in clients:
            await one.enter()

        async def carried_out(*channels: str) -> None:
            await until(
                lambda: all(one.has_lost(*channels) for one in clients), WITHIN, f"{channels}"
            )

        await unsubscribe(store.cluster, "c0")
        await carried_out("c0")
        await until_async(store.replica.is_in_step, 20, "the replica is in step")
        await store.promote()
        for channel in ("c1", "c2"):
            await unsubscribe(store.cluster, channel)
        await carried_out("c1", "c2")
        await store.demote()
        # They get the offsets of the two that the new master does not have, and one more.
        for channel in ("c3", "c4", "c5"):
            await unsubscribe(store.cluster, channel)
        await carried_out("c3", "c4", "c5")
        metrics = await store.cluster.metrics()
        assert metrics.total("app_control_messages_total", result="lost") == 0
        for one in clients:
            await one.client.close()
