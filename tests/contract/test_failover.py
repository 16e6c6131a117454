"""A master that is demoted, or that another replaces behind the same address: nobody is served by a replica."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.broker.canary import Canary
from cluster.config.redis_url import Address
from cluster.errors import StoreError, StoreRefused, StoreUnavailable
from cluster.resp.link import Link
from cluster.resp.router import Router
from tests.contract.conftest import program
from tests.contract.servers import Server
from tests.contract.stores import WAIT_SECONDS, RedisBench, Worker
from tests.harness.proxy import FaultProxy
from tests.harness.waiting import until

KINDS = pytest.mark.parametrize("kind", ["valkey", "redis"])


@pytest.fixture
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """A master and its replica, in step."""
    kind = request.getfixturevalue("kind")
    with Server(program(kind), tmp_path / "master") as master:
        options = ("--replicaof", f"127.0.0.1 {master.port}")
        with Server(program(kind), tmp_path / "replica", options=options) as replica:
            yield master, replica


def fail_over(master: Server, replica: Server) -> None:
    """Promote the replica, and let the old master follow it."""
    replica.ask("REPLICAOF", "NO", "ONE")
    master.ask("REPLICAOF", "127.0.0.1", replica.port)


async def in_step(replica: Server) -> None:
    await until(
        lambda: replica.ask("INFO", "replication")["master_link_status"] == "up",
        WAIT_SECONDS,
        "the replica follows",
    )


def canary_of(worker: Worker, prefix: str) -> Canary:
    parts = worker.parts
    return Canary(
        parts.router,
        parts.subscriptions,
        prefix=prefix,
        name="one",
        interval_seconds=0.05,
        deaf_after_seconds=2.0,
    )


@KINDS
async def test_behind_the_same_address_the_new_master_is_used_for_commands_and_subscriptions(
    kind: str, pair: tuple[Server, Server]
):
    master, replica = pair
    await in_step(replica)
    async with FaultProxy(master.port) as proxy:
        bench = RedisBench([master], urls=[f"redis://127.0.0.1:{proxy.port}"])
        try:
            worker = await bench.worker()
            await worker.subscribe()
            await worker.publish(b'{"data":1}')
            await asyncio.to_thread(fail_over, master, replica)
            # Connections that are open stay with the old master.
            proxy.target = replica.port
            with pytest.raises(StoreRefused, match="READONLY"):
                await worker.publish(b'{"data":2}')
            assert not worker.parts.router.is_up
            await worker.publish_until_it_works(b'{"data":3}')
            # What follows comes from the new master: the old one is not asked any more.
            await until(lambda: worker.parts.router.is_up, WAIT_SECONDS, "both links are up")
            master.stop()
            assert worker.parts.router.is_up
            await worker.publish_until_it_works(b'{"data":4}')
            await worker.recorder.until(lambda: b'{"data":4}' in worker.recorder.bodies())
        finally:
            await bench.aclose()


@KINDS
async def test_without_a_publication_the_canary_notices_a_replica(
    kind: str, pair: tuple[Server, Server]
):
    master, replica = pair
    await in_step(replica)
    bench = RedisBench([master])
    try:
        worker = await bench.worker()
        canary = canary_of(worker, bench.prefix)
        running = asyncio.ensure_future(canary.run())
        router = worker.parts.router
        assert not canary.is_deaf
        await asyncio.to_thread(fail_over, master, replica)
        await until(lambda: not router.is_up, WAIT_SECONDS, "a replica is not used")
        with pytest.raises(StoreUnavailable):
            await worker.publish()
        await asyncio.sleep(0.5)
        assert not router.is_up, "a replica is not connected to again"
        await asyncio.to_thread(fail_over, replica, master)
        await until(lambda: router.is_up, WAIT_SECONDS, "it is a master again")
        await until(lambda: not canary.is_deaf, WAIT_SECONDS, "its messages arrive again")
        await worker.publish()
        running.cancel()
    finally:
        await bench.aclose()


async def test_a_master_that_refuses_writes_for_a_while_makes_the_canary_deaf(own: RedisBench):
    worker = await own.worker()
    canary = canary_of(worker, own.prefix)
    running = asyncio.ensure_future(canary.run())
    own.servers[0].ask("CONFIG", "SET", "min-replicas-to-write", "1")
    await until(lambda: canary.is_deaf, WAIT_SECONDS, "NOREPLICAS makes it deaf")
    assert worker.parts.router.is_up
    own.servers[0].ask("CONFIG", "SET", "min-replicas-to-write", "0")
    await until(lambda: not canary.is_deaf, WAIT_SECONDS, "writes are taken")
    running.cancel()


@KINDS
async def test_a_replica_cannot_be_started_with_and_is_named(
    kind: str, pair: tuple[Server, Server]
):
    master, replica = pair
    await in_step(replica)
    router = Router([replica.url], timeout_seconds=0.5)
    with pytest.raises(StoreError, match=f"READONLY it is a replica of 127.0.0.1:{master.port}"):
        await router.start()
    await router.aclose()


async def test_a_user_who_may_not_ask_for_the_role_can_connect(own: RedisBench):
    own.servers[0].ask("ACL", "SETUSER", "ann", "on", ">x", "~*", "&*", "+@all", "-info")
    url = f"redis://ann:x@127.0.0.1:{own.servers[0].port}"
    link = Link(Address.from_url(url), timeout_seconds=2.0)
    link.start()
    try:
        await asyncio.wait_for(link.wait_up(), WAIT_SECONDS)
    finally:
        await link.aclose()
