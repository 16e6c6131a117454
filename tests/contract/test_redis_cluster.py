"""A real Redis Cluster of three masters: the same code, and slots that move."""

from __future__ import annotations

import asyncio

import pytest
from redis.crc import key_slot

from cluster.errors import StoreUnavailable
from cluster.resp.router import Router
from tests.contract.servers import Cluster
from tests.contract.stores import KEEP, WAIT_SECONDS, RedisBench, Worker
from tests.harness.processes import free_ports
from tests.harness.waiting import until


def body(number: int) -> bytes:
    return b'{"data":%d}' % number


def slot_of(bench: RedisBench, channel: str) -> int:
    slot: int = key_slot(f"{{{bench.prefix}:c:{channel}}}.pub".encode())
    return slot


async def keep_publishing(worker: Worker, channel: str, first: int, count: int) -> None:
    """Publish in turn, each until it is accepted."""
    for number in range(first, first + count):
        await worker.publish_until_it_works(body(number), channel=channel)


async def test_channels_on_all_masters_are_published_and_heard(clustered: RedisBench):
    one, two = await clustered.worker(), await clustered.worker()
    names = [f"channel-{number}" for number in range(60)]
    await asyncio.gather(*(one.subscribe(name) for name in names))
    positions = await asyncio.gather(*(two.publish(channel=name) for name in names))
    assert {position.offset for position in positions} == {1}
    await one.recorder.until(lambda: {name for name, _ in one.recorder.received} == set(names))
    owners = {one.parts.router.shard_of(f"{{{clustered.prefix}:c:{name}}}.pub") for name in names}
    assert len(owners) == 3
    assert one.parts.router.is_cluster


async def test_sessions_live_on_all_masters(clustered: RedisBench):
    one, two = await clustered.worker(), await clustered.worker()
    sessions = [await one.sessions.attach("u", None, n) for n in range(30)]
    for session in sessions:
        assert (await two.sessions.attach("u", session.id, "h")).is_resumed
        await two.sessions.update(session.id, state=1)
    await one.recorder.until(lambda: len(one.recorder.changes) == 30)
    assert (await clustered.statistics())["tracked"] == 30


async def test_after_a_slot_has_moved_everything_follows_it(
    cluster: Cluster, clustered: RedisBench
):
    publisher, listener = await clustered.worker(), await clustered.worker()
    await listener.subscribe("moving")
    await keep_publishing(publisher, "moving", 0, 3)
    await listener.recorder.until(lambda: listener.recorder.offsets("moving") == [1, 2, 3])
    new = await asyncio.to_thread(cluster.move, slot_of(clustered, "moving"))
    await keep_publishing(publisher, "moving", 3, 1)
    await listener.recorder.until(lambda: "moving" in listener.recorder.resumptions)
    await keep_publishing(publisher, "moving", 4, 3)
    await listener.recorder.until(lambda: body(6) in listener.recorder.bodies("moving"))
    read = await listener.broker.read("moving", KEEP, limit=-1)
    assert [one.body for one in read.publications] == [body(number) for number in range(7)]
    key = f"{{{clustered.prefix}:c:moving}}.pub"
    router = publisher.parts.router
    await until(lambda: router.shard_of(key).address.port == new.port, 10, "the map is read again")


async def test_a_worker_that_starts_after_the_move_finds_the_slot(
    cluster: Cluster, clustered: RedisBench
):
    await asyncio.to_thread(cluster.move, slot_of(clustered, "early"))
    worker = await clustered.worker()
    await worker.subscribe("early")
    await keep_publishing(worker, "early", 0, 1)
    await worker.recorder.until(lambda: bool(worker.recorder.bodies("early")))


async def test_a_subscribe_with_an_old_map_is_confirmed_by_the_new_owner(
    cluster: Cluster, clustered: RedisBench
):
    worker = await clustered.worker()
    await asyncio.to_thread(cluster.move, slot_of(clustered, "unaware"))
    waiting = worker.broker.subscribe("unaware")
    async with asyncio.timeout(WAIT_SECONDS):
        while not waiting.done():
            worker.parts.subscriptions.retry_unconfirmed()
            await asyncio.sleep(0.1)
    await keep_publishing(worker, "unaware", 0, 1)
    await worker.recorder.until(lambda: bool(worker.recorder.bodies("unaware")))


@pytest.mark.parametrize("count", [2000])
async def test_very_many_channels_are_subscribed_quickly(clustered: RedisBench, count: int):
    worker = await clustered.worker()
    waits = [worker.broker.subscribe(f"many-{number}") for number in range(count)]
    await asyncio.wait_for(asyncio.gather(*waits), WAIT_SECONDS)
    assert worker.parts.subscriptions.unconfirmed == 0


async def test_a_worker_that_began_while_a_master_was_away_still_follows_the_map(
    cluster: Cluster, clustered: RedisBench
):
    slot = slot_of(clustered, "late")
    old = await asyncio.to_thread(cluster.owner, slot)
    router = Router([cluster.url], timeout_seconds=1.0)
    cluster.nodes[2].pause()
    try:
        with pytest.raises(StoreUnavailable):
            await router.start()
    finally:
        cluster.nodes[2].go_on()
    try:
        await router.start()
        new = await asyncio.to_thread(cluster.move, slot)
        assert new.port != old.port
        router.refresh()
        key = f"{{{clustered.prefix}:c:late}}.pub"
        await until(
            lambda: router.shard_of(key).address.port == new.port, 10, "the move is followed"
        )
    finally:
        await router.aclose()


async def test_any_seed_that_answers_leads_into_the_cluster(cluster: Cluster):
    dead = f"redis://127.0.0.1:{free_ports(1)}"
    router = Router([dead, cluster.nodes[1].url, cluster.nodes[2].url], timeout_seconds=2.0)
    try:
        await router.start()
        assert router.is_cluster
        assert {shard.address.port for shard in router.shards} == {n.port for n in cluster.nodes}
    finally:
        await router.aclose()


async def test_a_seed_that_refuses_the_password_does_not_keep_the_next_from_being_asked(
    cluster: Cluster, own: RedisBench
):
    own.servers[0].ask("ACL", "SETUSER", "default", "resetpass", ">secret")
    node = cluster.nodes[0]
    router = Router([own.servers[0].url, node.url], timeout_seconds=60.0)
    node.pause()
    starting = asyncio.ensure_future(router.start())
    try:
        await until(lambda: bool(router.shards), 10, "the seeds are tried")
        refusing = router.shards[0].commands
        await until(lambda: refusing.failure is not None, 10, "one refuses")
        assert not starting.done()
        node.go_on()
        await asyncio.wait_for(starting, 30)
        assert router.is_cluster
    finally:
        node.go_on()
        starting.cancel()
        await router.aclose()
