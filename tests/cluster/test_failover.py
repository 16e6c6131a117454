"""A master fails over to its replica, or slots move, under load: what the store lost is told, nothing else is.

Replication is asynchronous, so a promoted replica may lack what its master acknowledged last. Where the
ledger shows such a loss, the subscription must have been told (`recovered: false`); every other one owes
every publication, once and in order. Not covered: a master that takes publications after its replica was
promoted, see docs/how-to/external-redis.md.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from tests.harness.cluster_bus import ClusterBus
from tests.harness.crowd import Crowd, Size
from tests.harness.proxy import FaultProxy
from tests.harness.store import Store, StoreCluster, StoreSentinel, ask
from tests.harness.under_load import FULL, assert_nothing_lost, cluster_under_load
from tests.harness.waiting import until_async

BACK_SECONDS = 10.0

failover_sizes = pytest.mark.parametrize(
    "size",
    [
        pytest.param(Size(50, 10, 2, 200), id="small"),
        pytest.param(FULL, id="full", marks=[pytest.mark.full, pytest.mark.timeout(600)]),
    ],
)


async def assert_back(cluster: Cluster, crowd: Crowd) -> None:
    """Within ten seconds of the promotion the cluster is ready and publications arrive."""
    since = time.monotonic()
    await until_async(cluster.is_ready, BACK_SECONDS, "ready after the promotion")
    await crowd.traffic(BACK_SECONDS)
    took = time.monotonic() - since
    print(f"\nback {took:.1f} s after the promotion")
    assert took <= BACK_SECONDS, f"back {took:.1f} s after the promotion"


async def assert_told(crowd: Crowd, within: float = 30.0) -> None:
    """Every fault of the ledger is at a subscription that was told of a gap."""
    await crowd.traffic(within)
    report = await crowd.settle(within)
    assert crowd.outside() == []
    told = {(f.channel, f.subscriber) for f in report.faults if f.kind == "unrecovered"}
    untold = [str(f) for f in report.faults if (f.channel, f.subscriber) not in told]
    assert untold == [], str(report)
    print(f"{report}; told {len(told)}; {crowd.summary()}")


@failover_sizes
async def test_sentinel_promotes_a_replica_when_the_master_is_killed(tmp_path: Path, size: Size):
    async with (
        Store(tmp_path / "master") as master,
        Store(tmp_path / "replica", master=master) as replica,
        StoreSentinel(tmp_path / "sentinel", master) as sentinel,
    ):
        await until_async(replica.is_in_step, 20, "the replica is in step")
        await until_async(sentinel.knows_replica, 30, "Sentinel knows the replica")
        async with cluster_under_load(tmp_path, size, redis_urls=(sentinel.url,)) as (
            cluster,
            crowd,
        ):
            master.kill()
            await until_async(replica.is_master, 30, "the replica is promoted")
            await assert_back(cluster, crowd)
            await assert_told(crowd)


@failover_sizes
async def test_a_replica_is_promoted_behind_the_same_address(tmp_path: Path, size: Size):
    async with (
        Store(tmp_path / "master") as master,
        Store(tmp_path / "replica", master=master) as replica,
        FaultProxy(master.port) as proxy,
    ):
        await until_async(replica.is_in_step, 20, "the replica is in step")
        urls = (f"redis://127.0.0.1:{proxy.port}",)
        async with cluster_under_load(tmp_path, size, redis_urls=urls) as (cluster, crowd):
            # The master waits until the replica has everything, so nothing may be lost.
            answer = await ask(master.port, "FAILOVER", "TO", "127.0.0.1", replica.port)
            assert answer.startswith("+OK"), answer
            await until_async(replica.is_master, 30, "the replica is promoted")
            # Connections that are open stay with the demoted server, which lives on.
            proxy.target = replica.port
            await assert_back(cluster, crowd)
            await assert_nothing_lost(crowd)
        assert "store_demoted" in cluster.log()


@failover_sizes
async def test_a_replica_that_is_promoted_too_early_is_told_of(tmp_path: Path, size: Size):
    """The old master goes on for a while, and gives the same offsets to other publications."""
    async with (
        Store(tmp_path / "master") as master,
        Store(tmp_path / "replica", master=master) as replica,
        FaultProxy(master.port) as proxy,
    ):
        await until_async(replica.is_in_step, 20, "the replica is in step")
        urls = (f"redis://127.0.0.1:{proxy.port}",)
        async with cluster_under_load(tmp_path, size, redis_urls=urls) as (cluster, crowd):
            await ask(replica.port, "REPLICAOF", "NO", "ONE")
            # These are acknowledged by the old master alone.
            await crowd.traffic()
            proxy.target = replica.port
            await ask(master.port, "REPLICAOF", "127.0.0.1", replica.port)
            await assert_back(cluster, crowd)
            await assert_told(crowd)
        assert "publications_lost" in cluster.log()


@failover_sizes
async def test_a_node_of_a_redis_cluster_fails_over_to_its_replica(tmp_path: Path, size: Size):
    async with (
        StoreCluster(tmp_path / "store") as nodes,
        Store(tmp_path / "replica", is_cluster_node=True) as replica,
    ):
        victim = nodes.nodes[1]
        await nodes.add_replica(replica, victim)
        async with cluster_under_load(tmp_path, size, redis_urls=(nodes.url,)) as (cluster, crowd):
            victim.kill()
            await until_async(replica.is_master, 30, "the replica is promoted")
            await assert_back(cluster, crowd)
            await assert_told(crowd)


@failover_sizes
async def test_a_node_of_a_redis_cluster_that_only_clients_still_reach_is_left(
    tmp_path: Path, size: Size
):
    """Its connections live on, and it refuses commands for ever: no connection breaks."""
    async with (
        ClusterBus() as bus,
        StoreCluster(tmp_path / "store", bus=bus) as nodes,
        Store(tmp_path / "replica", is_cluster_node=True, bus=bus) as replica,
    ):
        victim = nodes.nodes[0]
        await nodes.add_replica(replica, victim)
        async with cluster_under_load(tmp_path, size, redis_urls=(nodes.url,)) as (cluster, crowd):
            await nodes.cut_off(victim)
            await until_async(replica.is_master, 30, "the replica is promoted")
            await assert_back(cluster, crowd)
            await assert_told(crowd)
            assert "cluster_state:fail" in await ask(victim.port, "CLUSTER", "INFO")


@failover_sizes
async def test_slots_that_are_migrated_under_load_lose_nothing(tmp_path: Path, size: Size):
    async with (
        StoreCluster(tmp_path / "store") as nodes,
        cluster_under_load(tmp_path, size, redis_urls=(nodes.url,)) as (cluster, crowd),
    ):
        moved = 0
        for channel in crowd.channels:
            moved += await nodes.migrate(f"{{ws:0:c:{channel}}}")
        assert moved == len(crowd.channels)
        await until_async(cluster.is_ready, BACK_SECONDS, "ready")
        await assert_nothing_lost(crowd, within=60)
        assert crowd.errors["error 100"] == 0, crowd.summary()
