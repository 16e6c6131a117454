"""A worker or a machine that is killed: when its lease ends, its clients have left every channel, each once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.harness.client import Client
from tests.harness.cluster import Cluster
from tests.harness.processes import family, is_running
from tests.harness.store import Store
from tests.harness.waiting import until, until_async

LEASE = 6.0
RENEWED_EVERY = 1.0
#: From the kill: the lease, the survivors' next look, and 3 s for a busy machine. With a lease of twice the
#: length the entries last for 11 s at least, because they were renewed within the second before the kill.
GONE_WITHIN = LEASE + RENEWED_EVERY + 3
assert GONE_WITHIN < 2 * LEASE - RENEWED_EVERY
CHANNEL = "room:1"
CONFIG = {
    "client": {"presence_update_interval": f"{RENEWED_EVERY:g}s", "presence_ttl": f"{LEASE:g}s"},
    "channel": {
        "namespaces": [
            {
                "name": "room",
                "presence": True,
                "join_leave": True,
                "force_push_join_leave": True,
            }
        ]
    },
}
MEMBERS = 20


async def a_member(cluster: Cluster, slot: int, name: str) -> Client:
    client = Client(cluster.worker_port(slot), name=name)
    await client.start()
    client.subscribe(CHANNEL, lambda subscription, publication: None)
    # Until its worker is subscribed at the broker it misses the joins of those that come after it.
    await until(lambda: client.is_whole, 20, f"{name} is subscribed")
    return client


def machine(directory: Path, store: Store) -> Cluster:
    """One of several on a store."""
    return Cluster(directory, workers=2, config=CONFIG, redis_urls=(store.url,), has_nginx=False)


async def present(client: Client) -> set[str]:
    return set((await client.call("presence", {"channel": CHANNEL}))["presence"])


def seen(client: Client, kind: str) -> list[str]:
    """The client ids of all joins, or of all leaves, that a client has received."""
    return [one[kind]["info"]["client"] for one in client.joins_and_leaves if kind in one]


async def all_joined(watchers: list[Client], members: set[str]) -> None:
    for watcher in watchers:
        await until(lambda one=watcher: members <= set(seen(one, "join")), 20, "all have joined")  # type: ignore[misc]


async def the_dead_leave_once(watchers: list[Client], dead: set[str], killed_at: float) -> None:
    """Their entries are there until their lease ends, and each watcher then gets one leave of each."""
    assert dead <= await present(watchers[0]), "their entries are still there"
    for watcher in watchers:
        await until(
            lambda one=watcher: dead <= set(seen(one, "leave")),  # type: ignore[misc]
            killed_at + GONE_WITHIN - time.monotonic(),
            f"all have left within {GONE_WITHIN} s of the kill",
        )
    took = time.monotonic() - killed_at
    print(f"\nthe last leave came {took:.2f} s after the kill; the lease is {LEASE} s")
    assert took > LEASE / 4, "their lease is respected"
    alive = {client.result["client"] for client in watchers}
    assert [await present(watcher) for watcher in watchers] == [alive] * len(watchers)
    stats = await watchers[0].call("presence_stats", {"channel": CHANNEL})
    assert stats == {"num_clients": len(watchers), "num_users": 1}
    for watcher in watchers:
        assert sorted(seen(watcher, "leave")) == sorted(dead), "each leave once"
        joins = seen(watcher, "join")
        assert len(joins) == len(set(joins)), "each join once"


async def test_presence_is_right_within_the_lease_after_a_kill_and_each_leave_comes_once(
    tmp_path: Path,
):
    async with Cluster(tmp_path / "run", workers=3, config=CONFIG) as cluster:
        watchers = [await a_member(cluster, slot, f"watcher {slot}") for slot in (0, 1)]
        doomed = [await a_member(cluster, 2, f"member {number}") for number in range(MEMBERS)]
        everyone = {client.result["client"] for client in (*watchers, *doomed)}
        dead = {client.result["client"] for client in doomed}

        async def all_are_here() -> bool:
            return await present(watchers[0]) == everyone

        await until_async(all_are_here, 20, "all are present")
        await all_joined(watchers, dead)
        for client in doomed:
            # They stay away: what is there after the lease is there by mistake.
            client._wanted = False
        victim = cluster.workers()[2]
        killed_at = time.monotonic()
        os.kill(victim.pid, signal.SIGKILL)
        await until(lambda: not is_running(victim.pid), 5, "the worker has ended")
        await the_dead_leave_once(watchers, dead, killed_at)
        await cluster.shows("app_presence_entries", 2)
        for client in (*watchers, *doomed):
            await client.close()


async def test_the_members_of_a_machine_that_is_killed_leave_once_when_its_lease_ends(
    tmp_path: Path,
):
    """All processes of one of two machines end at the same moment; nobody is left to start them again."""
    async with (
        Store(tmp_path / "store") as store,
        machine(tmp_path / "survivor", store) as survivor,
        machine(tmp_path / "victim", store) as victim,
    ):
        watchers = [await a_member(survivor, slot, f"watcher {slot}") for slot in (0, 1)]
        doomed = [await a_member(victim, number % 2, f"member {number}") for number in range(6)]
        dead = {client.result["client"] for client in doomed}
        await all_joined(watchers, dead)
        for client in doomed:
            client._wanted = False
        processes = [victim.pid, *family(victim.pid)]
        killed_at = time.monotonic()
        for pid in processes:
            os.kill(pid, signal.SIGKILL)
        assert victim.process is not None
        victim.process.wait(5)
        await until(lambda: not any(map(is_running, processes)), 5, "the machine is off")
        await the_dead_leave_once(watchers, dead, killed_at)
        await survivor.shows("app_presence_entries", 2)
        for client in (*watchers, *doomed):
            await client.close()


async def test_a_roll_moves_the_members_and_leaves_none_behind(tmp_path: Path):
    async with Cluster(tmp_path / "run", workers=2, config=CONFIG) as cluster:
        members = [await a_member(cluster, number % 2, f"member {number}") for number in range(10)]
        await cluster.roll()

        async def only_the_living() -> bool:
            subscriptions = [one.subscriptions[CHANNEL] for one in members if one.is_connected]
            if [one.state for one in subscriptions] != ["subscribed"] * len(members):
                return False
            return await present(members[0]) == {one.result["client"] for one in members}

        await until_async(only_the_living, 20, "the members have moved")
        for member in members:
            await member.close()
