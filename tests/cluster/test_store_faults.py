"""The store dies, stops, or is behind a faulty network: clients stay, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from tests.harness.crowd import Crowd, Size
from tests.harness.processes import held, is_running
from tests.harness.proxy import FaultProxy
from tests.harness.store import Store
from tests.harness.under_load import PAIR, assert_nothing_lost, cluster_under_load, every_size
from tests.harness.waiting import until, until_async

PAUSE = 5.0
# Longer than broker.timeout (4 s) and broker.deaf_after (5 s): the workers have to notice.
BLACK_HOLE = 8.0
DELAY = 0.25


@every_size
async def test_a_killed_valkey_comes_back_with_its_data(tmp_path: Path, size: Size):
    async with cluster_under_load(tmp_path, size) as (cluster, crowd):
        victim = cluster.child("valkey")
        started = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        await until(lambda: not is_running(victim), 5, "Valkey has ended")
        await until_async(cluster.is_ready, 20, "ready again")
        await assert_nothing_lost(crowd)
        assert cluster.child("valkey") != victim
        assert dict(crowd.codes(started)) == {}, "a worker without a broker keeps its clients"


@every_size
async def test_a_valkey_paused_for_five_seconds_loses_nothing(tmp_path: Path, size: Size):
    async with cluster_under_load(tmp_path, size) as (cluster, crowd):
        victim = cluster.child("valkey")
        started = time.monotonic()
        with held(victim):
            await asyncio.sleep(PAUSE)
        await until_async(cluster.is_ready, 20, "ready again")
        await assert_nothing_lost(crowd)
        assert dict(crowd.codes(started)) == {}


@contextlib.asynccontextmanager
async def behind_a_proxy(
    directory: Path, size: Size
) -> AsyncIterator[tuple[Cluster, Crowd, FaultProxy]]:
    """A cluster under load whose store is behind a fault proxy."""
    async with Store(directory / "store") as store, FaultProxy(store.port) as proxy:
        urls = (f"redis://127.0.0.1:{proxy.port}",)
        async with cluster_under_load(directory, size, redis_urls=urls) as (cluster, crowd):
            started = time.monotonic()
            yield cluster, crowd, proxy
            await proxy.heal()
            await until_async(cluster.is_ready, 30, "ready again")
            await assert_nothing_lost(crowd, within=60)
            assert dict(crowd.codes(started)) == {}, "a worker without a broker keeps its clients"


@every_size
async def test_a_slow_network_to_the_store_loses_nothing(tmp_path: Path, size: Size):
    async with behind_a_proxy(tmp_path, size) as (_, crowd, proxy):
        proxy.slow_down(DELAY)
        await crowd.traffic()
        await asyncio.sleep(3 * DELAY)
        since = time.monotonic()
        await crowd.traffic()
        assert crowd.latency(0.5, since) >= 2 * DELAY


@every_size
async def test_a_black_hole_before_the_store_loses_nothing(tmp_path: Path, size: Size):
    async with behind_a_proxy(tmp_path, size) as (cluster, _, proxy):
        proxy.black_hole()

        async def is_not_ready() -> bool:
            return not await cluster.is_ready()

        await until_async(
            is_not_ready, 20, "workers that do not receive from the broker are not ready"
        )
        await asyncio.sleep(BLACK_HOLE / 2)


@every_size
async def test_half_open_connections_to_the_store_are_noticed_and_lose_nothing(
    tmp_path: Path, size: Size
):
    async with behind_a_proxy(tmp_path, size) as (_, crowd, proxy):
        proxy.half_open()
        await crowd.traffic(within=40)


@every_size
async def test_a_store_whose_replies_are_lost_stores_nothing_twice(tmp_path: Path, size: Size):
    async with behind_a_proxy(tmp_path, size) as (_, crowd, proxy):
        proxy.deafen()
        await crowd.traffic(within=40)
        assert proxy.swallowed["reply"] > 0


@pytest.mark.parametrize("seconds", [pytest.param(0.2, marks=pytest.mark.full), 3.0])
async def test_a_network_cut_to_the_store_loses_nothing(tmp_path: Path, seconds: float):
    async with behind_a_proxy(tmp_path, PAIR) as (_, _, proxy):
        await proxy.cut()
        await asyncio.sleep(seconds)


async def test_a_worker_killed_during_an_outage_of_the_store_waits_for_it(tmp_path: Path):
    async with (
        Store(tmp_path / "store") as store,
        Cluster(tmp_path, workers=2, redis_urls=(store.url,)) as cluster,
    ):
        with store.paused():
            for worker in cluster.workers():
                os.kill(worker.pid, signal.SIGKILL)
            # More than three boots that fail after broker.timeout would take: the program ends
            # after three failures in a row, and must not count an outage as one.
            await asyncio.sleep(3 * 4 + 2)
            assert cluster.is_running, cluster.log_tail()
            assert not await cluster.is_ready()
        await until_async(cluster.is_ready, 30, "ready again")
