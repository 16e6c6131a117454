"""A user has as many connections as the limit says, at whichever worker; a killed worker's are forgotten."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from cluster.sessions.user_connections import LEASE_SECONDS
from tests.harness.client import Client
from tests.harness.cluster import Cluster
from tests.harness.waiting import until, until_async
from tests.unit.test_auth import token

LIMIT = 3
KEY = "k" * 32
CONFIG = {
    "client": {
        "insecure": False,
        "token": {"hmac_secret_key": KEY},
        "user_connection_limit": LIMIT,
        "allow_anonymous_connect_without_token": True,
    }
}


def client(cluster: Cluster, slot: int, user: str) -> Client:
    return Client(cluster.worker_port(slot), connect_request={"token": token(key=KEY, sub=user)})


async def test_a_user_has_as_many_connections_as_the_limit_at_all_workers(tmp_path: Path):
    async with Cluster(tmp_path / "run", workers=2, config=CONFIG) as cluster:
        clients = [await client(cluster, number % 2, "eve").start() for number in range(LIMIT)]
        for slot in (0, 1):
            refused = client(cluster, slot, "eve")
            refused.begin()
            await until(lambda refused=refused: refused.is_terminated, 10, "it is refused")  # type: ignore[misc]
            assert refused.history.codes() == {3504: 1}
        other = await client(cluster, 0, "bob").start()
        await cluster.shows("app_connections_rejected_total", 2, reason="user_connection_limit")
        await clients[0].close()
        await client_connects(cluster, "eve")
        assert other.is_connected
        for one in (*clients, other):
            await one.close()


async def test_clients_without_a_token_are_no_user_whose_connections_are_counted(tmp_path: Path):
    async with Cluster(tmp_path / "run", workers=1, config=CONFIG) as cluster:
        clients = [await Client(cluster.worker_port(0)).start() for _ in range(LIMIT + 1)]
        assert all(one.is_connected for one in clients)
        for one in clients:
            await one.close()


async def client_connects(cluster: Cluster, user: str, within: float = 10.0) -> None:
    """Wait until a client of the user is accepted."""

    async def connects() -> bool:
        one = client(cluster, 1, user)
        one.begin()
        await until(lambda: one.is_connected or one.is_terminated, 10, "it is accepted or refused")
        with contextlib.suppress(OSError):
            await one.close()
        return not one.is_terminated or one.history.codes()[3504] == 0

    await until_async(connects, within, f"{user} has a place")


@pytest.mark.full
@pytest.mark.timeout(180)
async def test_connections_of_a_killed_worker_are_forgotten_within_the_lease(tmp_path: Path):
    async with Cluster(tmp_path / "run", workers=2, config=CONFIG) as cluster:
        for number in range(LIMIT):
            one = client(cluster, 0, "eve")
            one.name = str(number)
            await one.start()
            one._wanted = False
        os.kill(cluster.workers()[0].pid, signal.SIGKILL)
        await client_connects(cluster, "eve", LEASE_SECONDS + 20)


async def told(one: Client) -> Client:
    """Connect; returns when all workers have been told, which is before the store has what it then publishes."""
    await one.start()
    await one.publish("told", 1)
    return one


async def test_of_a_user_s_single_connection_the_newest_remains_at_whichever_worker(tmp_path: Path):
    personal = {"subscribe_to_user_personal_channel": {"enabled": True, "single_connection": True}}
    config = {
        "client": {**CONFIG["client"], "user_connection_limit": 0, **personal},
        "channel": {"without_namespace": {"allow_publish_for_client": True}},
    }
    async with Cluster(tmp_path / "run", workers=2, config=config) as cluster:
        other = await client(cluster, 0, "bob").start()
        clients = [await told(client(cluster, 0, "eve"))]
        for slot in (1, 0, 1):
            clients.append(await told(client(cluster, slot, "eve")))
            before = clients[-2]
            await until(lambda before=before: before.is_terminated, 10, "the older is closed")  # type: ignore[misc]
            assert before.history.codes() == {3504: 1}
            assert clients[-1].is_connected
        # At the same time: one remains, and not none.
        rivals = [client(cluster, number % 2, "eve") for number in range(6)]
        for rival in rivals:
            rival.begin()

        def open_ones() -> list[Client]:
            return [one for one in (*clients, *rivals) if not one.is_terminated]

        await until(lambda: len(open_ones()) == 1, 10, "one is left")
        [left] = open_ones()
        await until(lambda: left.is_connected, 10, "it is connected")
        assert other.is_connected
        await cluster.shows("app_active_connections", 2)
        assert left.is_connected
        for one in (left, other):
            await one.close()
