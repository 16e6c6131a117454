"""Faults with the official clients: a kill and a roll lose nothing and deliver nothing twice."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.conformance.sdk_browser import ORIGINS
from tests.conformance.sdk_clients import SDKS, Refused, Sdk
from tests.harness.cluster import Cluster
from tests.harness.ledger import Ledger
from tests.harness.processes import held
from tests.harness.proxy import FaultProxy
from tests.harness.store import Store
from tests.harness.under_load import assert_no_traceback
from tests.harness.waiting import until, until_async

SUBSCRIBERS = 12
CHANNELS = ["channel-a", "channel-b", "channel-c"]
GAP = 0.05
QUIET_SECONDS = 0.5
PAUSE = 5.0
# Longer than broker.timeout (4 s) and broker.deaf_after (5 s).
BLACK_HOLE = 8.0
DELAY = 0.25
# Each of these takes as long as all else that is tested with the SDKs of Go and Java: they have the kill only.
KILL_ONLY = ("go", "java")
without_kill_only = pytest.mark.parametrize(
    "sdk", [name for name in sorted(SDKS) if not name.startswith(KILL_ONLY)], indirect=True
)


class SdkCrowd:
    """Many SDK clients with a ledger; publishers are SDK clients too."""

    def __init__(self, sdk: Sdk, url: str) -> None:
        self.sdk = sdk
        self.url = url
        self.ledger = Ledger()
        self.members = {
            f"s{number}": CHANNELS[number % len(CHANNELS)] for number in range(SUBSCRIBERS)
        }
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def gather(self) -> None:
        for name, channel in self.members.items():
            await self.sdk.do("connect", name, url=self.url)
            await self.sdk.do("subscribe", name, channel=channel)
            subscribed = await self.sdk.events.seen("subscribed", client=name)
            self.ledger.joined(name, channel, subscribed["offset"])
        for channel in CHANNELS:
            await self.sdk.do("connect", f"p-{channel}", url=self.url)
            await self.sdk.events.seen("connected", client=f"p-{channel}")
            self._tasks.append(asyncio.create_task(self._publish(channel)))

    async def _publish(self, channel: str) -> None:
        while not self._stop.is_set():
            number = self.ledger.next_number(channel)
            try:
                await self.sdk.do("publish", f"p-{channel}", channel=channel, data=number)
            except Refused:
                self.ledger.unknown(channel, number)
            else:
                self.ledger.acknowledged(channel, number)
            await asyncio.sleep(GAP)

    async def settle(self) -> None:
        """Stop publishing, let everything arrive, and book it."""
        self._stop.set()
        await asyncio.gather(*self._tasks)
        booked = 0

        def is_settled() -> bool:
            nonlocal booked
            fresh = self.sdk.events.all[booked:]
            booked += len(fresh)
            for event in fresh:
                self._book(event)
            return self.ledger.missing() == 0

        await until(is_settled, 30, "every publication has arrived")
        # A duplicate may be the last to arrive.
        await asyncio.sleep(QUIET_SECONDS)
        is_settled()
        report = self.ledger.report()
        print(f"\n{report}")
        assert report.is_clean, str(report)
        assert report.acknowledged > len(CHANNELS)

    def _book(self, event: dict[str, object]) -> None:
        name = str(event["client"])
        if event["event"] == "publication":
            number, offset = event["data"], event["offset"]
            assert isinstance(number, int)
            assert isinstance(offset, int)
            self.ledger.got(name, self.members[name], number, offset)
        elif event["event"] == "subscribed" and event["wasRecovering"] and not event["recovered"]:
            self.ledger.unrecovered(name, self.members[name])

    async def traffic(self, count: int = 20) -> None:
        """Wait for so many more publications."""
        start = len(self.sdk.events.of("publication"))
        await self.sdk.events.seen("publication", times=start + count, within=30)


@asynccontextmanager
async def cluster_with_sdks(
    sdk: Sdk, directory: Path, *, redis_urls: tuple[str, ...] = ()
) -> AsyncIterator[tuple[Cluster, SdkCrowd]]:
    config = {"client": {"allowed_origins": [ORIGINS]}}
    async with Cluster(
        directory / "run", workers=3, config=config, redis_urls=redis_urls
    ) as cluster:
        crowd = SdkCrowd(sdk, f"ws://127.0.0.1:{cluster.port}/connection/websocket")
        await crowd.gather()
        await crowd.traffic()
        yield cluster, crowd
    assert_no_traceback(cluster)


def reconnects(sdk: Sdk) -> Callable[[str], int]:
    return lambda name: len(sdk.events.of("connecting", client=name)) - 1


async def test_a_killed_worker_loses_nothing_for_the_sdk(sdk: Sdk, tmp_path: Path):
    async with cluster_with_sdks(sdk, tmp_path) as (cluster, crowd):
        os.kill(cluster.workers()[0].pid, signal.SIGKILL)
        await until(lambda: len(cluster.workers()) == 3, 15, "the worker is replaced")
        await until_async(cluster.is_ready, 15, "ready")
        await crowd.traffic()
        await crowd.settle()
        moved = [name for name in crowd.members if reconnects(sdk)(name)]
        assert 0 < len(moved) < SUBSCRIBERS


@without_kill_only
async def test_a_roll_loses_nothing_for_the_sdk(sdk: Sdk, tmp_path: Path):
    async with cluster_with_sdks(sdk, tmp_path) as (cluster, crowd):
        started = time.monotonic()
        await cluster.roll()
        await crowd.traffic()
        await crowd.settle()
        print(f"roll in {time.monotonic() - started:.1f} s")
        moves = [reconnects(sdk)(name) for name in crowd.members]
        assert max(moves) <= 2
        codes = {event["code"] for event in sdk.events.of("connecting") if event["code"] >= 3000}
        assert codes == {3001}
        assert sdk.events.of("disconnected") == []


@without_kill_only
async def test_a_killed_valkey_loses_nothing_for_the_sdk(sdk: Sdk, tmp_path: Path):
    async with cluster_with_sdks(sdk, tmp_path) as (cluster, crowd):
        os.kill(cluster.child("valkey"), signal.SIGKILL)
        await until_async(cluster.is_ready, 20, "ready again")
        await crowd.traffic()
        await crowd.settle()


@without_kill_only
async def test_a_paused_valkey_loses_nothing_for_the_sdk(sdk: Sdk, tmp_path: Path):
    async with cluster_with_sdks(sdk, tmp_path) as (cluster, crowd):
        with held(cluster.child("valkey")):
            await asyncio.sleep(PAUSE)
        await until_async(cluster.is_ready, 20, "ready again")
        await crowd.traffic()
        await crowd.settle()
        assert sdk.events.of("disconnected") == []


async def slow(proxy: FaultProxy) -> None:
    proxy.slow_down(DELAY)
    await asyncio.sleep(4 * DELAY)


async def silent(proxy: FaultProxy) -> None:
    proxy.black_hole()
    await asyncio.sleep(BLACK_HOLE)


async def half_open(proxy: FaultProxy) -> None:
    proxy.half_open()
    await asyncio.sleep(1.0)


@without_kill_only
@pytest.mark.parametrize("fault", [slow, silent, half_open], ids=lambda fault: fault.__name__)
async def test_a_bad_network_to_the_store_loses_nothing_for_the_sdk(
    sdk: Sdk, tmp_path: Path, fault: Callable[[FaultProxy], Awaitable[None]]
):
    async with Store(tmp_path / "store") as store, FaultProxy(store.port) as proxy:
        urls = (f"redis://127.0.0.1:{proxy.port}",)
        async with cluster_with_sdks(sdk, tmp_path, redis_urls=urls) as (cluster, crowd):
            await fault(proxy)
            await proxy.heal()
            await until_async(cluster.is_ready, 30, "ready again")
            await crowd.traffic()
            await crowd.settle()
            assert sdk.events.of("disconnected") == []
