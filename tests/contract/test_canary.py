"""The canary: a worker whose subscription delivers nothing notices it and subscribes again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from cluster.broker.canary import Canary
from cluster.errors import StoreRefused
from tests.contract.servers import Cluster, Server
from tests.contract.stores import RedisBench, Worker
from tests.contract.test_redis_cluster import slot_of
from tests.harness.proxy import FaultProxy
from tests.harness.waiting import until

INTERVAL_SECONDS = 0.05
DEAF_SECONDS = 0.3


@contextlib.asynccontextmanager
async def running(bench: RedisBench, worker: Worker) -> AsyncIterator[Canary]:
    canary = Canary(
        worker.parts.router,
        worker.parts.subscriptions,
        prefix=bench.prefix,
        name="here:w0a:1",
        interval_seconds=INTERVAL_SECONDS,
        deaf_after_seconds=DEAF_SECONDS,
    )
    task = asyncio.get_running_loop().create_task(canary.run())
    try:
        yield canary
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_worker_that_receives_its_canary_is_not_deaf(real: RedisBench):
    worker = await real.worker()
    async with running(real, worker) as canary:
        began = time.time()
        await until(
            lambda: canary.last_heard_timestamp > began + 2 * DEAF_SECONDS, 5, "it is heard"
        )
        assert not canary.is_deaf


async def test_two_workers_do_not_take_each_others_canaries_for_their_own(real: RedisBench):
    one, two = await real.worker(), await real.worker()
    async with running(real, one) as first, running(real, two) as second:
        began = time.time()
        for canary in (first, second):
            await until(lambda: canary.last_heard_timestamp > began + 4 * DEAF_SECONDS, 10, "heard")  # noqa: B023
            assert not canary.is_deaf


async def test_a_subscription_that_delivers_nothing_is_noticed_and_made_anew(real: RedisBench):
    async with FaultProxy(real.servers[0].port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        worker = await real.worker(urls=[url], listens_to_sessions=False)
        await worker.subscribe()
        async with running(real, worker) as canary:
            await until(lambda: bool(canary._received_at), 5, "it has begun")
            connections = proxy.accepted
            deafen_subscriptions(proxy, real.servers[0])
            await until(lambda: canary.is_deaf, 5, "it is deaf")
            await until(lambda: not canary.is_deaf, 5, "messages arrive again")
            assert proxy.accepted > connections
            assert worker.recorder.resumptions == ["c"]
            await worker.publish()
            await worker.recorder.until(lambda: bool(worker.recorder.received))


def deafen_subscriptions(proxy: FaultProxy, server: Server) -> None:
    """Swallow what the server sends to subscribers; commands go on working."""
    lines = bytes(server.ask("CLIENT", "LIST")).decode().splitlines()
    clients = [dict(word.split("=", 1) for word in line.split()) for line in lines]
    subscribers = {int(one["addr"].rpartition(":")[2]) for one in clients if one["ssub"] != "0"}
    for pair in proxy._pairs:
        port = pair.writers[1].get_extra_info("sockname")[1]
        pair.is_deaf = pair.is_deaf or port in subscribers


async def test_a_server_that_is_paused_makes_the_worker_deaf_until_it_goes_on(own: RedisBench):
    worker = await own.worker()
    async with running(own, worker) as canary:
        await until(lambda: bool(canary._received_at), 5, "it has begun")
        own.servers[0].ask("CLIENT", "PAUSE", "800", "ALL")
        await until(lambda: canary.is_deaf, 5, "it is deaf")
        await until(lambda: not canary.is_deaf, 5, "messages arrive again")


async def test_every_master_of_a_cluster_is_listened_to(clustered: RedisBench):
    worker = await clustered.worker()
    async with running(clustered, worker) as canary:
        await until(lambda: len(canary._received_at) == 3, 5, "all masters are known")
        began = time.time()
        await until(lambda: canary.last_heard_timestamp > began + 3 * DEAF_SECONDS, 10, "heard")
        assert not canary.is_deaf
        owners = {worker.parts.router.shard_of(key) for key in canary._keys.values()}
        assert len(owners) == 3


async def test_a_cluster_that_is_down_makes_the_worker_deaf_until_it_is_up(
    cluster: Cluster, clustered: RedisBench
):
    """A slot that no node serves: every link is up, and a node answers CLUSTERDOWN."""
    worker = await clustered.worker()
    slot = slot_of(clustered, "down")
    owner = await asyncio.to_thread(cluster.owner, slot)
    async with running(clustered, worker) as canary:
        await until(lambda: len(canary._received_at) == 3, 5, "all masters are known")
        owner.ask("CLUSTER", "DELSLOTS", slot)
        try:
            await until(lambda: canary.is_deaf, 10, "it is deaf")
            assert worker.parts.router.is_up
            with pytest.raises(StoreRefused, match="CLUSTERDOWN") as caught:
                await worker.publish(channel="down")
            assert caught.value.is_temporary
        finally:
            owner.ask("CLUSTER", "ADDSLOTS", slot)
        await until(lambda: not canary.is_deaf, 20, "messages arrive again")
        await worker.publish_until_it_works(b'{"data":1}', channel="down")
