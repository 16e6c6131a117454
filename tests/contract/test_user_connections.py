"""The connections of a user are counted across workers, over real servers."""

from __future__ import annotations

import asyncio
import time

import pytest

from cluster.sessions import user_connections
from cluster.sessions.user_connections import UserConnections
from tests.contract.servers import Server
from tests.contract.stores import RedisBench
from tests.harness.waiting import until_async

LIMIT = 3


async def two_workers(bench: RedisBench, limit: int = LIMIT) -> list[UserConnections]:
    workers = [await bench.worker(listens_to_sessions=False) for _ in range(2)]
    return [
        UserConnections(worker.parts.router, prefix=bench.prefix, limit=limit) for worker in workers
    ]


async def test_a_user_has_as_many_connections_as_the_limit_at_all_workers(
    real: RedisBench,
):
    one, two = await two_workers(real)
    assert await one.enter("eve", "1")
    assert await two.enter("eve", "2")
    assert await one.enter("eve", "3")
    assert not await two.enter("eve", "4")
    assert not await one.enter("eve", "5")
    assert await two.enter("bob", "6")
    one.leave("eve", "1")
    assert await one.enter("eve", "7")
    assert not await two.enter("eve", "8")


async def test_of_many_at_once_as_many_enter_as_the_limit_says(clustered: RedisBench):
    one, two = await two_workers(clustered)
    entered = await asyncio.gather(
        *(worker.enter("eve", f"{n}") for n, worker in enumerate([one, two] * 20))
    )
    assert entered.count(True) == LIMIT


async def test_a_user_cannot_be_named_like_the_key_of_another(real: RedisBench):
    one, _ = await two_workers(real, 1)
    for user in ("eve", "eve}", "}.connections", "{eve", "eve:u", "évé", " "):
        assert await one.enter(user, user)
        assert not await one.enter(user, "another")


async def test_connections_of_a_killed_worker_stop_counting_and_those_of_others_do_not(
    real: RedisBench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(user_connections, "LEASE_SECONDS", 1.0)
    killed, living = await two_workers(real)
    assert await killed.enter("eve", "1")
    assert await killed.enter("eve", "2")
    assert await living.enter("eve", "3")
    assert not await living.enter("eve", "4")
    last = 4

    async def has_room() -> bool:
        nonlocal last
        last += 1
        await living.renew()
        return await living.enter("eve", str(last))

    await until_async(has_room, 10, "the killed worker's connections have stopped counting")
    assert await living.enter("eve", "100")
    assert not await living.enter("eve", "101")


async def test_connections_that_a_worker_of_the_version_before_counts_by_its_own_clock_count(
    real: RedisBench,
):
    one, _ = await two_workers(real, 2)
    [server] = real.servers
    key = f"{{{real.prefix}:u:eve}}.connections"
    server.ask("ZADD", key, str(int(time.time() * 1000) + 60_000), "of-the-version-before")
    assert await one.enter("eve", "1")
    assert not await one.enter("eve", "2")


async def test_what_is_left_of_a_user_expires(real: RedisBench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(user_connections, "LEASE_SECONDS", 0.2)
    one, _ = await two_workers(real)
    assert await one.enter("eve", "1")
    [server] = real.servers

    async def is_empty() -> bool:
        return not keys(server, real.prefix)

    assert keys(server, real.prefix)
    await until_async(is_empty, 10, "no key is left")


def keys(server: Server, prefix: str) -> list[str]:
    return [str(key) for key in server.ask("KEYS", f"{{{prefix}:u:*")]
