"""Channels that the server API and an application give to sessions come back with them, under load.

Each subscriber is given its channel once, while publications flow: half of them by `/api/subscribe`, half by
the application. From then on only its session knows the channel.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from tests.harness.client import Client, Subscription
from tests.harness.cluster import Cluster
from tests.harness.crowd import Crowd, Size
from tests.harness.processes import is_running
from tests.harness.server_side_client import (
    SessionClient,
    SessionProtobufClient,
    token_of,
)
from tests.harness.under_load import assert_no_traceback, assert_nothing_lost, described
from tests.harness.waiting import until, until_async

SIZE = Size(subscribers=60, channels=6, workers=3, publishes_per_second=40)
KEY, TOKEN_KEY = "a" * 32, "t" * 32
WITHIN = 60.0
APPLICATION = """
import cluster

app = cluster.Application()


@app.rpc("give")
async def give(client, channel):
    await client.session.subscribe(channel)


@app.rpc("take")
async def take(client, channel):
    await client.session.unsubscribe(channel)
"""
CONFIG: dict[str, Any] = {
    "app": {"target": "giving:app"},
    "http_api": {"key": KEY},
    # A client may not subscribe by itself: what comes back must be its session's.
    "client": {"insecure": False, "token": {"hmac_secret_key": TOKEN_KEY}},
    "channel": {"without_namespace": {"allow_publish_for_client": True}},
}


class SessionCrowd(Crowd):
    """Subscribers that are given their channel by the server API, or by the application, in turn."""

    def __init__(self, port: int) -> None:
        super().__init__(port, SIZE)
        self.http = aiohttp.ClientSession()
        self.gifts = 0
        self.may_give = asyncio.Event()
        self._giving: set[asyncio.Task[None]] = set()

    def _subscriber(self, number: int, channel: str) -> Client:
        def given(client: SessionClient) -> None:
            self._giving.add(asyncio.create_task(self._give_once(client, channel)))

        kind = SessionProtobufClient if number % 4 == 3 else SessionClient
        return self._client(f"subscriber-{number}", kind, given=given)

    def _client(self, name: str, kind: type[Client] = Client, **options: Any) -> Client:
        request = {"token": token_of(name, "", TOKEN_KEY)}
        return super()._client(name, kind, connect_request=request, **options)

    async def gather_while_publishing(self) -> None:
        """Connect all, publish, and only then let the subscribers get their channels."""
        gathering = asyncio.create_task(self.gather(WITHIN))

        def are_connected() -> bool:
            return bool(self.publishers) and all(one.is_connected for one in self.clients)

        await until(are_connected, WITHIN, "all are connected")
        self.begin_publishing()
        await until(lambda: self.ledger.report().acknowledged > 0, WITHIN, "publications flow")
        self.may_give.set()
        await gathering

    async def _give_once(self, client: SessionClient, channel: str) -> None:
        await self.may_give.wait()
        await self.give(client, channel)

    @property
    def session_clients(self) -> list[SessionClient]:
        return [one for one in self.subscribers if isinstance(one, SessionClient)]

    def is_from_api(self, client: Client) -> bool:
        return int(client.name.rpartition("-")[2]) % 2 == 0

    async def give(self, client: SessionClient, channel: str, *, takes: bool = False) -> None:
        """Let the server subscribe a client, or end it."""
        self.gifts += 1
        if self.is_from_api(client):
            await self.api("unsubscribe" if takes else "subscribe", client.name, channel)
        else:
            await client.call("rpc", {"method": "take" if takes else "give", "data": channel})

    async def api(self, method: str, user: str, channel: str) -> None:
        url = f"http://127.0.0.1:{self.port}/api/{method}"
        body, headers = {"user": user, "channel": channel}, {"X-API-Key": KEY}
        async with self.http.post(url, json=body, headers=headers) as response:
            assert (response.status, await response.json()) == (200, {"result": {}})

    async def close(self) -> None:
        await asyncio.gather(*self._giving)
        await super().close()
        await self.http.close()


@contextlib.asynccontextmanager
async def crowd_with_sessions(folder: Path) -> AsyncIterator[tuple[Cluster, SessionCrowd]]:
    modules = folder / "modules"
    modules.mkdir()
    (modules / "giving.py").write_text(APPLICATION)
    cluster = Cluster(folder / "run", workers=SIZE.workers, config=CONFIG, modules=modules)
    async with cluster:
        crowd = SessionCrowd(cluster.client_port)
        async with described(crowd):
            await crowd.gather_while_publishing()
            await crowd.traffic()
            yield cluster, crowd
    assert_no_traceback(cluster)


async def assert_all_came_back(crowd: SessionCrowd, moved: int) -> None:
    await assert_nothing_lost(crowd, within=WITHIN)
    assert crowd.gifts == SIZE.subscribers, "each was given its channel once"
    assert all(not one.subscriptions for one in crowd.session_clients)
    came_back = [one for one in crowd.session_clients if one.resumed]
    assert len(came_back) >= moved
    for by_api in (True, False):
        assert any(crowd.is_from_api(one) is by_api for one in came_back)


async def kill(cluster: Cluster, count: int) -> None:
    victims = cluster.workers()[:count]
    for victim in victims:
        os.kill(victim.pid, signal.SIGKILL)
    await until(lambda: not any(is_running(one.pid) for one in victims), 10, "they have ended")
    await until(lambda: len(cluster.workers()) == SIZE.workers, WITHIN, "they are replaced")
    await until_async(cluster.is_ready, WITHIN, "ready")


async def test_channels_of_sessions_come_back_after_a_worker_was_killed(tmp_path: Path):
    async with crowd_with_sessions(tmp_path) as (cluster, crowd):
        await kill(cluster, 1)
        await assert_all_came_back(crowd, moved=2)


async def test_channels_of_sessions_come_back_after_every_worker_was_killed(tmp_path: Path):
    async with crowd_with_sessions(tmp_path) as (cluster, crowd):
        await kill(cluster, SIZE.workers)
        await assert_all_came_back(crowd, moved=SIZE.subscribers)


async def test_channels_of_sessions_come_back_over_a_roll(tmp_path: Path):
    async with crowd_with_sessions(tmp_path) as (cluster, crowd):
        await cluster.roll(within=120)
        await assert_all_came_back(crowd, moved=SIZE.subscribers)


async def test_what_was_taken_from_a_session_does_not_come_back(tmp_path: Path):
    async with crowd_with_sessions(tmp_path) as (cluster, crowd):
        leavers = crowd.session_clients[:2]
        for client in leavers:
            [(channel, subscription)] = client.server_side.items()
            crowd.ledger.left(client.name, channel)
            await crowd.give(client, channel, takes=True)
            await until(partial(_has_ended, subscription), WITHIN, "it has ended")
        await kill(cluster, SIZE.workers)
        await until(lambda: all(one.resumed for one in leavers), WITHIN, "they are back")
        assert all("subs" not in one.result for one in leavers)
        staying = [one for one in crowd.clients if one not in leavers]
        await until(lambda: all(one.is_whole for one in staying), WITHIN, "the others have theirs")
        report = await crowd.settle(WITHIN)
        assert report.is_clean, str(report)


def _has_ended(subscription: Subscription) -> bool:
    return subscription.codes == [2000]
