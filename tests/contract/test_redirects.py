"""A Redis Cluster whose slots are being migrated: ASK and TRYAGAIN are followed, and order is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from cluster.errors import StoreRefused
from tests.contract.servers import Cluster, Server
from tests.contract.stores import FORGET, KEEP, RedisBench
from tests.contract.test_redis_cluster import body, slot_of
from tests.contract.test_store_reasons import failure, rules, use


@pytest.fixture(params=[rules(prefix="mine")])
async def documented(request: pytest.FixtureRequest, cluster: Cluster) -> AsyncIterator[RedisBench]:
    """Workers before the cluster, as the user of the documented rules, or of the given ones."""
    for node in cluster.nodes:
        node.ask("ACL", "SETUSER", "ws-cluster", "reset", *request.param)
        node.ask("ACL", "LOG", "RESET")
    url = f"redis://ws-cluster:PASSWORD@127.0.0.1:{cluster.nodes[0].port}"
    made = RedisBench(cluster.nodes, urls=[url], name="mine")
    yield made
    await made.aclose()
    for node in cluster.nodes:
        node.ask("ACL", "DELUSER", "ws-cluster")


NO_ASKING = [*rules(prefix="mine"), "-asking"]


async def begin_migration(cluster: Cluster, slot: int) -> tuple[Server, Server]:
    """Let a slot migrate, without moving a key yet; returns its old and its new node."""

    def begin() -> tuple[Server, Server]:
        old = cluster.owner(slot)
        new = next(node for node in cluster.nodes if node is not old)
        new.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", str(old.ask("CLUSTER", "MYID"), "ascii"))
        old.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", str(new.ask("CLUSTER", "MYID"), "ascii"))
        return old, new

    return await asyncio.to_thread(begin)


def move_keys(old: Server, new: Server, *keys: str) -> None:
    old.ask("MIGRATE", "127.0.0.1", new.port, "", 0, 5000, "KEYS", *keys)


def end_migration(cluster: Cluster, slot: int, new: Server) -> None:
    new_id = str(new.ask("CLUSTER", "MYID"), "ascii")
    for node in (new, *(one for one in cluster.nodes if one is not new)):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", new_id)


async def test_keys_that_were_migrated_are_written_and_read_at_the_new_node(
    cluster: Cluster, clustered: RedisBench
):
    worker = await clustered.worker()
    await worker.subscribe("ask")
    await worker.publish(body(0), channel="ask")
    slot = slot_of(clustered, "ask")
    old, new = await begin_migration(cluster, slot)
    tag = f"{{{clustered.prefix}:c:ask}}"
    await asyncio.to_thread(move_keys, old, new, f"{tag}.meta", f"{tag}.stream")
    positions = await asyncio.gather(
        *(worker.publish(body(n), channel="ask") for n in range(1, 51))
    )
    assert [one.offset for one in positions] == list(range(2, 52))
    read = await worker.broker.read("ask", KEEP, limit=-1)
    assert [one.body for one in read.publications] == [body(n) for n in range(51)]
    await asyncio.to_thread(end_migration, cluster, slot, new)
    # The new node's subscribers get what is published from here on; the rest is in the stream.
    await worker.recorder.until(lambda: "ask" in worker.recorder.resumptions)
    await worker.publish(body(51), channel="ask")
    await worker.recorder.until(lambda: body(51) in worker.recorder.bodies("ask"))


async def test_keys_on_both_sides_are_waited_for_and_order_is_kept(
    cluster: Cluster, clustered: RedisBench
):
    worker = await clustered.worker()
    await worker.publish(body(0), channel="split")
    slot = slot_of(clustered, "split")
    old, new = await begin_migration(cluster, slot)
    tag = f"{{{clustered.prefix}:c:split}}"
    await asyncio.to_thread(move_keys, old, new, f"{tag}.meta")
    waiting = [
        asyncio.ensure_future(worker.publish(body(n), channel="split")) for n in range(1, 21)
    ]
    done, _ = await asyncio.wait(waiting, timeout=0.3)
    assert not done
    waiting += [
        asyncio.ensure_future(worker.publish(body(n), channel="split")) for n in range(21, 41)
    ]
    await asyncio.to_thread(move_keys, old, new, f"{tag}.stream")
    positions = await asyncio.gather(*waiting)
    assert [one.offset for one in positions] == list(range(2, 42))
    read = await worker.broker.read("split", KEEP, limit=-1)
    assert [one.body for one in read.publications] == [body(n) for n in range(41)]
    await asyncio.to_thread(end_migration, cluster, slot, new)


async def test_keys_that_stay_on_both_sides_are_an_error_in_bounded_time(
    cluster: Cluster, clustered: RedisBench
):
    worker = await clustered.worker()
    await worker.publish(body(0), channel="stuck")
    slot = slot_of(clustered, "stuck")
    old, new = await begin_migration(cluster, slot)
    tag = f"{{{clustered.prefix}:c:stuck}}"
    await asyncio.to_thread(move_keys, old, new, f"{tag}.meta")
    with pytest.raises(StoreRefused, match="TRYAGAIN") as caught:
        await worker.publish(body(1), channel="stuck")
    assert caught.value.is_temporary
    await asyncio.to_thread(move_keys, old, new, f"{tag}.stream")
    await asyncio.to_thread(end_migration, cluster, slot, new)
    await worker.publish(body(2), channel="stuck")


async def test_publications_without_history_follow_a_moved_slot_in_their_order(
    cluster: Cluster, clustered: RedisBench
):
    worker = await clustered.worker()
    slot = slot_of(clustered, "brief")
    await asyncio.to_thread(cluster.move, slot)
    publishes = [worker.publish(body(n), channel="brief", history=FORGET) for n in range(20)]
    await asyncio.gather(*publishes)


async def test_a_publication_after_a_moved_slot_is_not_refused(
    cluster: Cluster, clustered: RedisBench
):
    worker = await clustered.worker()
    await worker.publish(body(0), channel="moved")
    await asyncio.to_thread(cluster.move, slot_of(clustered, "moved"))
    positions = await asyncio.gather(
        *(worker.publish(body(n), channel="moved") for n in range(1, 21))
    )
    assert [one.offset for one in positions] == list(range(2, 22))


async def test_the_documented_rules_suffice_while_a_slot_is_migrated(
    cluster: Cluster, documented: RedisBench
):
    user = f"redis://ws-cluster:PASSWORD@127.0.0.1:{cluster.nodes[0].port}"
    assert await failure(user, prefix="mine") == ""
    one, two = await documented.worker(), await documented.worker()
    await use(one, two)
    await one.publish(body(0), channel="documented")
    slot = slot_of(documented, "documented")
    old, new = await begin_migration(cluster, slot)
    tag = f"{{{documented.prefix}:c:documented}}"
    await asyncio.to_thread(move_keys, old, new, f"{tag}.meta", f"{tag}.stream")
    assert (await one.publish(body(1), channel="documented")).offset == 2
    read = await two.broker.read("documented", KEEP, limit=-1)
    assert read.top.offset == 2
    await asyncio.to_thread(end_migration, cluster, slot, new)
    assert [node.ask("ACL", "LOG") for node in cluster.nodes] == [[], [], []], "nothing was refused"


@pytest.mark.parametrize("documented", [NO_ASKING], indirect=True)
async def test_a_user_that_may_not_ask_is_named_at_the_start(
    cluster: Cluster, documented: RedisBench
):
    text = await failure(
        f"redis://ws-cluster:PASSWORD@127.0.0.1:{cluster.nodes[0].port}", prefix="mine"
    )
    assert "NOPERM" in text
    assert "asking" in text
    assert "the store at 127.0.0.1:" in text


@pytest.mark.parametrize("documented", [NO_ASKING], indirect=True)
async def test_a_command_whose_asking_is_refused_gets_that_reason(
    cluster: Cluster, documented: RedisBench
):
    worker = await documented.worker()
    await worker.publish(body(0), channel="unasked")
    slot = slot_of(documented, "unasked")
    old, new = await begin_migration(cluster, slot)
    tag = f"{{{documented.prefix}:c:unasked}}"
    await asyncio.to_thread(move_keys, old, new, f"{tag}.meta", f"{tag}.stream")
    with pytest.raises(StoreRefused, match=r"NOPERM.*asking"):
        await worker.publish(body(1), channel="unasked")
    with pytest.raises(StoreRefused, match=r"NOPERM.*asking"):
        await worker.broker.read("unasked", KEEP, limit=-1)
    await asyncio.to_thread(end_migration, cluster, slot, new)
    assert (await worker.publish(body(1), channel="unasked")).offset == 2
