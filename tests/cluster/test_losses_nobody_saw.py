"""What a failover has lost when no subscriber was there to see it: a client learns it all the same.

A replica is promoted while the old master still acknowledges publications, and gives their offsets to
others.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.client import Client, NoReply, ReplyError
from tests.harness.cluster import Cluster
from tests.harness.proxy import FaultProxy
from tests.harness.store import Store, ask
from tests.harness.waiting import until, until_async

CHANNEL = "news"
WITHIN = 30.0


@dataclass
class Pair:
    """A master and its replica behind one address, and a cluster that uses it."""

    master: Store
    replica: Store
    proxy: FaultProxy
    cluster: Cluster

    async def promote(self) -> None:
        """From here on nothing is replicated; new connections go to the replica."""
        answer = await ask(self.replica.port, "REPLICAOF", "NO", "ONE")
        assert answer.startswith("+OK"), answer
        self.proxy.target = self.replica.port

    async def demote(self) -> None:
        """End the old master's rule, and wait until the cluster serves with the new one."""
        await ask(self.master.port, "REPLICAOF", "127.0.0.1", self.replica.port)
        # The workers notice within a second, and are not ready from then on.
        await until(
            lambda: "store_demoted" in self.cluster.log(), WITHIN, "the demotion is noticed"
        )
        await until_async(self.cluster.is_ready, WITHIN, "ready after the failover")


@contextlib.asynccontextmanager
async def pair(directory: Path, config: dict[str, Any] | None = None) -> AsyncIterator[Pair]:
    async with (
        Store(directory / "master") as master,
        Store(directory / "replica", master=master) as replica,
        FaultProxy(master.port) as proxy,
    ):
        await until_async(replica.is_in_step, 20, "the replica is in step")
        urls = (f"redis://127.0.0.1:{proxy.port}",)
        async with Cluster(directory / "run", workers=2, config=config, redis_urls=urls) as cluster:
            yield Pair(master, replica, proxy, cluster)


class Reader:
    """A client in the channel: what it got, and what its subscribes were answered."""

    def __init__(self, port: int) -> None:
        self.got: list[Any] = []
        self.results: list[dict[str, Any]] = []
        self.client = Client(port)
        self.subscription = self.client.subscribe(
            CHANNEL,
            lambda _, publication: self.got.append(publication["data"]),
            lambda _, result: self.results.append(result),
        )

    async def enter(self) -> None:
        await self.client.start()
        await until(lambda: self.client.is_whole, WITHIN, "it is in the channel")


async def publish_until_it_works(client: Client, data: Any) -> None:
    async def works() -> bool:
        with contextlib.suppress(ReplyError, NoReply):
            await client.publish(CHANNEL, data)
            return True
        return False

    await until_async(works, WITHIN, f"{data} is published")


async def three_delivered(store: Pair) -> tuple[Client, Reader]:
    """A publisher and a reader at two workers, after three publications."""
    publisher = await Client(store.cluster.worker_port(0)).start()
    reader = Reader(store.cluster.worker_port(1))
    await reader.enter()
    for number in (1, 2, 3):
        await publisher.publish(CHANNEL, number)
    await until(lambda: reader.got == [1, 2, 3], WITHIN, "three are delivered")
    return publisher, reader


async def test_a_client_that_was_away_is_told_though_the_offsets_were_given_again(tmp_path: Path):
    async with pair(tmp_path) as store:
        publisher, reader = await three_delivered(store)
        await store.promote()
        for number in (4, 5):
            await publisher.publish(CHANNEL, number)
        await until(lambda: reader.got[3:] == [4, 5], WITHIN, "the old master delivers two more")
        # Nobody is in the channel while the store fails over.
        await reader.client.close()
        await store.demote()
        for number in (14, 15, 16):
            await publish_until_it_works(publisher, number)
        first, reader.results[:] = reader.results[0], []
        reader.client.begin()
        await until(lambda: bool(reader.results), WITHIN, "it is back")
        # It has 4 and 5, which the stream no longer has; it lacks 14 and 15.
        if reader.results[0].get("recovered"):
            await until(lambda: 2500 in reader.subscription.codes, WITHIN, "it is told later")
            await until(lambda: len(reader.results) > 1, WITHIN, "it subscribes again")
        assert not reader.results[-1].get("recovered"), reader.results
        assert reader.results[-1]["epoch"] != first["epoch"]
        await publish_until_it_works(publisher, 17)
        await until(lambda: reader.got[-1] == 17, WITHIN, "what is new arrives")
        for client in (reader.client, publisher):
            await client.close()
        assert "publications_lost" in store.cluster.log()


async def cut_off_from_the_master(store: Pair, subscriptions: int) -> None:
    """End the connection that has the most subscriptions: its worker subscribes at the replica."""
    listed = await ask(store.master.port, "CLIENT", "LIST", "TYPE", "pubsub")
    found = [(int(ssub), id_) for id_, ssub in re.findall(r"\bid=(\d+) .* ssub=(\d+)", listed)]
    assert max(found)[0] - min(found)[0] == subscriptions, listed
    assert (await ask(store.master.port, "CLIENT", "KILL", "ID", max(found)[1])).startswith(":1")


async def test_what_was_acknowledged_at_one_worker_and_delivered_to_none_is_told_at_all(
    tmp_path: Path,
):
    async with pair(tmp_path) as store:
        publisher = await Client(store.cluster.worker_port(0)).start()
        reader = Reader(store.cluster.worker_port(1))
        await reader.enter()
        await publisher.publish(CHANNEL, 1)
        await until(lambda: reader.got == [1], WITHIN, "it is delivered")
        await until_async(store.replica.is_in_step, 20, "the replica is in step")
        await store.promote()
        await cut_off_from_the_master(store, 1)

        async def subscribed_at_replica() -> bool:
            answer = await ask(store.replica.port, "PUBSUB", "SHARDCHANNELS", "*news*")
            return "news" in answer

        await until_async(subscribed_at_replica, WITHIN, "the reader's worker has moved")
        await publisher.publish(CHANNEL, 2)
        assert reader.got == [1]
        await store.demote()
        # No publication follows: without being told, the reader would wait for 2 for ever.
        await until(lambda: 2500 in reader.subscription.codes, 15, "the reader is told")
        await until(lambda: len(reader.results) > 1, WITHIN, "it subscribes again")
        assert not reader.results[-1].get("recovered"), reader.results
        await publish_until_it_works(publisher, 3)
        await until(lambda: reader.got == [1, 3], WITHIN, "what is new arrives")
        for client in (reader.client, publisher):
            await client.close()


async def test_a_planned_switch_is_not_noticed_by_a_client_that_was_away(tmp_path: Path):
    async with pair(tmp_path) as store:
        publisher, reader = await three_delivered(store)
        await reader.client.close()
        answer = await ask(store.master.port, "FAILOVER", "TO", "127.0.0.1", store.replica.port)
        assert answer.startswith("+OK"), answer
        await until_async(store.replica.is_master, 30, "the replica is promoted")
        store.proxy.target = store.replica.port
        await until(lambda: "store_demoted" in store.cluster.log(), WITHIN, "it is noticed")
        await until_async(store.cluster.is_ready, WITHIN, "ready after the switch")
        await publish_until_it_works(publisher, 4)
        reader.results.clear()
        reader.client.begin()
        await until(lambda: bool(reader.results), WITHIN, "it is back")
        assert reader.results[0].get("recovered"), reader.results
        assert reader.got == [1, 2, 3, 4]
        for client in (reader.client, publisher):
            await client.close()
        assert "publications_lost" not in store.cluster.log()
