"""A master of a real Redis Cluster that only clients still reach: its replica serves its slots, and is found."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.errors import StoreRefused
from tests.contract.stores import RedisBench, Worker
from tests.contract.test_canary import running
from tests.harness.cluster_bus import ClusterBus
from tests.harness.store import Store, StoreCluster, ask
from tests.harness.waiting import until, until_async


class CutCluster:
    """Three masters and a replica of the first, before and after the first is cut off."""

    def __init__(self, nodes: StoreCluster, replica: Store) -> None:
        self.nodes = nodes
        self.victim = nodes.nodes[0]
        self.replica = replica
        # Only the node that will be cut off is known to the workers.
        self.bench = RedisBench([], urls=[self.victim.url])

    async def cut(self) -> None:
        await self.nodes.cut_off(self.victim)
        await until_async(self.replica.is_master, 30, "the replica is promoted")

    def has_left(self, worker: Worker) -> bool:
        """Whether a worker uses the promoted replica, and the old master no more."""
        ports = {shard.address.port for shard in worker.parts.router.shards}
        return self.replica.port in ports and self.victim.port not in ports

    async def maps_given(self) -> int:
        """How often the nodes have answered CLUSTER SLOTS."""
        nodes = [*self.nodes.nodes, self.replica]
        answers = [await ask(node.port, "INFO", "commandstats") for node in nodes]
        counts = (re.search(r"cmdstat_cluster\|slots:calls=(\d+)", text) for text in answers)
        return sum(int(count[1]) for count in counts if count)

    def channel(self, worker: Worker) -> str:
        """One whose slot the first master had."""
        router = worker.parts.router
        names = (f"channel-{number}" for number in range(1000))
        ports = {self.victim.port, self.replica.port}
        return next(
            name
            for name in names
            if router.shard_of(self.bench.key(name, "pub")).address.port in ports
        )


@pytest.fixture
async def cut(tmp_path: Path) -> AsyncIterator[CutCluster]:
    async with contextlib.AsyncExitStack() as stack:
        bus = await stack.enter_async_context(ClusterBus())
        nodes = await stack.enter_async_context(StoreCluster(tmp_path / "store", bus=bus))
        replica = Store(tmp_path / "replica", is_cluster_node=True, bus=bus)
        await stack.enter_async_context(replica)
        await nodes.add_replica(replica, nodes.nodes[0])
        made = CutCluster(nodes, replica)
        stack.push_async_callback(made.bench.aclose)
        yield made


async def test_a_master_that_is_cut_off_from_its_cluster_is_left_for_its_replica(cut: CutCluster):
    worker, listener = await cut.bench.worker(), await cut.bench.worker()
    channel = cut.channel(worker)
    await listener.subscribe(channel)
    await worker.publish(channel=channel)
    async with running(cut.bench, worker) as one, running(cut.bench, listener) as two:
        await cut.cut()
        for each in (worker, listener):
            await until(lambda: cut.has_left(each), 30, "the replica is used")  # noqa: B023
        await worker.publish_until_it_works(b'{"data":2}', channel=channel)
        await listener.recorder.until(lambda: b'{"data":2}' in listener.recorder.bodies(channel))
        for canary in (one, two):
            await until(lambda: not canary.is_deaf, 30, "its canary arrives")  # noqa: B023


async def test_a_command_that_a_cut_off_master_refuses_is_reason_enough_to_ask(cut: CutCluster):
    worker = await cut.bench.worker()
    channel = cut.channel(worker)
    await cut.cut()
    assert not cut.has_left(worker)
    assert worker.parts.router.is_up
    with pytest.raises(StoreRefused, match="CLUSTERDOWN"):
        await worker.publish(channel=channel)
    await until(lambda: cut.has_left(worker), 30, "the replica is used")
    await worker.publish(channel=channel)


async def test_a_worker_that_starts_with_a_master_that_is_cut_off_finds_its_replica(
    cut: CutCluster,
):
    await cut.cut()
    worker = await cut.bench.worker(listens_to_sessions=False)
    async with running(cut.bench, worker) as canary:
        await until(lambda: cut.has_left(worker), 30, "the replica is used")
        await until(lambda: not canary.is_deaf, 30, "its canary arrives")
        await worker.publish(channel=cut.channel(worker))


async def test_very_many_refused_commands_ask_for_the_map_twice_a_second_at_most(cut: CutCluster):
    worker = await cut.bench.worker()
    channel = cut.channel(worker)
    await cut.cut()
    before, since = await cut.maps_given(), time.monotonic()
    publishes = (worker.publish(channel=channel) for _ in range(1000))
    replies = await asyncio.gather(*publishes, return_exceptions=True)
    refused = [reply for reply in replies if isinstance(reply, StoreRefused)]
    await until(lambda: cut.has_left(worker), 30, "the replica is used")
    given = await cut.maps_given() - before
    print(f"{len(refused)} refused, {given} maps asked for, {time.monotonic() - since:.2f} s")
    assert len(refused) > 100
    assert given <= 2 * (time.monotonic() - since) + 2
