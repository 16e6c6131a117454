"""The same load over a Redis Cluster of three nodes, and over several stores that share the channels."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.harness.crowd import Size
from tests.harness.processes import is_running
from tests.harness.store import Store, StoreCluster, ask
from tests.harness.under_load import PAIR, assert_nothing_lost, cluster_under_load, every_size
from tests.harness.waiting import until, until_async


async def keys(store: Store) -> int:
    """How many keys a store holds."""
    return int((await ask(store.port, "DBSIZE")).strip().lstrip(":"))


@every_size
async def test_a_redis_cluster_of_three_nodes_serves_the_load(tmp_path: Path, size: Size):
    async with (
        StoreCluster(tmp_path / "store") as nodes,
        cluster_under_load(tmp_path, size, redis_urls=(nodes.url,)) as (cluster, crowd),
    ):
        victim = cluster.workers()[0]
        os.kill(victim.pid, signal.SIGKILL)
        await until(lambda: not is_running(victim.pid), 5, "a worker has ended")
        await until_async(cluster.is_ready, 15, "ready")
        await assert_nothing_lost(crowd)
        assert all([await keys(node) > 0 for node in nodes.nodes])


async def test_a_node_of_a_redis_cluster_that_restarts_loses_nothing(tmp_path: Path):
    async with (
        StoreCluster(tmp_path / "store") as nodes,
        cluster_under_load(tmp_path, PAIR, redis_urls=(nodes.url,)) as (cluster, crowd),
    ):
        nodes.nodes[1].kill()
        await nodes.nodes[1].start()
        await until_async(cluster.is_ready, 30, "ready")
        await assert_nothing_lost(crowd, within=60)


async def test_two_stores_share_the_channels(tmp_path: Path):
    async with (
        Store(tmp_path / "one") as one,
        Store(tmp_path / "two") as two,
        cluster_under_load(tmp_path, PAIR, redis_urls=(one.url, two.url)) as (_, crowd),
    ):
        await assert_nothing_lost(crowd)
        assert await keys(one) > 0
        assert await keys(two) > 0


async def test_one_of_two_stores_restarting_loses_nothing(tmp_path: Path):
    async with (
        Store(tmp_path / "one") as one,
        Store(tmp_path / "two") as two,
        cluster_under_load(tmp_path, PAIR, redis_urls=(one.url, two.url)) as (cluster, crowd),
    ):
        one.kill()
        await one.start()
        await until_async(cluster.is_ready, 30, "ready")
        await assert_nothing_lost(crowd, within=60)
