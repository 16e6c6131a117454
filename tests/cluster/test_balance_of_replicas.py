"""Replicas that come, flap and die: their connections become even, slowly, and no client misses anything.

Each replica is a supervisor of its own with one worker, all on one store; one nginx with the product's own
configuration is in front of them, and its least_conn chooses the worker, as in docker/compose.yml. Only the
DNS is missing: nginx knows the ports of all replicas from the start and passes over those that do not
answer. Time is compressed: reports every half second, and up to all connections of a worker per minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.harness.cluster import Cluster
from tests.harness.crowd import Crowd, Size
from tests.harness.front_nginx import FrontNginx
from tests.harness.processes import children, is_running
from tests.harness.store import Store
from tests.harness.under_load import assert_no_traceback, assert_nothing_lost
from tests.harness.waiting import until, until_async

SIZE = Size(subscribers=200, channels=10, workers=1, publishes_per_second=40)
SHED = "app_connections_shed_total"


def balance(**options: Any) -> dict[str, Any]:
    return {"balance": {"enabled": True, "interval": "500ms", "after": "2s", **options}}


QUICKLY = balance(shed_percent_per_minute=100)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


class Replicas:
    """Four replicas, of which some run, and the clients of the nginx before them."""

    def __init__(self, all_of_them: list[Cluster], crowd: Crowd) -> None:
        self.all = all_of_them
        self.crowd = crowd

    @property
    def running(self) -> list[Cluster]:
        return [one for one in self.all if one.is_running]

    async def connections(self) -> list[int]:
        """Of each that runs."""
        pages = await asyncio.gather(*(one.metrics() for one in self.running))
        return [int(page.total("app_active_connections")) for page in pages]

    async def shed(self) -> int:
        pages = await asyncio.gather(*(one.metrics() for one in self.running))
        return int(sum(page.total(SHED) for page in pages))

    async def are_even(self) -> bool:
        """Within 15 % of the mean, and every client is connected."""
        found = await self.connections()
        mean = len(self.crowd.clients) / len(self.running)
        return sum(found) == len(self.crowd.clients) and all(
            abs(one - mean) <= 0.15 * mean for one in found
        )


@asynccontextmanager
async def replicas(
    directory: Path, running: int, config: dict[str, Any]
) -> AsyncIterator[Replicas]:
    """Four replicas with one front, of which so many run, and a crowd on them."""
    async with AsyncExitStack() as parts:
        store = await parts.enter_async_context(Store(directory / "store"))
        found = [
            Cluster(
                directory / f"replica-{number}",
                workers=1,
                config=config,
                redis_urls=(store.url,),
                has_nginx=False,
            )
            for number in range(4)
        ]
        for one in found:
            parts.push_async_callback(one.stop)
        for one in found[:running]:
            await one.start()
        front = await parts.enter_async_context(FrontNginx(directory / "front", found))
        crowd = Crowd(front.port, SIZE)
        parts.push_async_callback(crowd.close)
        try:
            await crowd.gather()
            crowd.begin_publishing()
            await crowd.traffic()
            yield Replicas(found, crowd)
        except BaseException as error:
            error.add_note(f"-- the crowd --\n{crowd.summary()}")
            for one in found:
                error.add_note(f"-- {one.directory.name} --\n{one.log_tail(15)}")
            raise
    for one in found:
        assert_no_traceback(one)


async def test_two_replicas_more_are_used_and_no_client_moves_twice(tmp_path: Path):
    async with replicas(tmp_path, 2, QUICKLY) as cluster:
        started = time.monotonic()
        await asyncio.gather(*(one.start() for one in cluster.all[2:]))
        took = await until_async(cluster.are_even, 150, "all four are within 15 % of the mean")
        print(f"\n2 to 4 replicas: even after {took:.0f} s, {await cluster.connections()}")
        await assert_nothing_lost(cluster.crowd)
        assert set(cluster.crowd.codes(started)) == {3011}
        assert max(cluster.crowd.moves(started)) == 1
        assert cluster.crowd.refusals() == {}
        # Half of the connections have moved, at the most.
        assert await cluster.shed() <= len(cluster.crowd.clients) / 2


async def test_a_replica_that_flaps_causes_no_herd(tmp_path: Path):
    share = 0.3
    async with replicas(tmp_path, 2, balance(shed_percent_per_minute=30)) as cluster:
        started = time.monotonic()
        flapping = cluster.all[2]
        for _ in range(4):
            await flapping.start()
            # Longer than the wait, so that some do move.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(8):
                    await until_async(lambda: moved(cluster), 60, "some have moved")
            await flapping.stop()
        minutes = (time.monotonic() - started) / 60
        closed = cluster.crowd.codes(started)[3011]
        print(f"\nin {60 * minutes:.0f} s, {closed} connections were closed to balance")
        assert closed <= share * len(cluster.crowd.clients) * (minutes + 1)
        await assert_nothing_lost(cluster.crowd)
        # What comes at once is what the flapping replica had when it drained.
        assert cluster.crowd.busiest_second(started) <= len(cluster.crowd.clients) / 5


def have_ended(pids: list[int]) -> bool:
    return not any(map(is_running, pids))


async def moved(cluster: Replicas) -> bool:
    return (await cluster.connections())[2] >= 20


async def test_half_of_the_replicas_are_killed_and_come_back(tmp_path: Path):
    async with replicas(tmp_path, 4, QUICKLY) as cluster:
        victims = cluster.all[2:]
        for one in victims:
            family = [one.pid, *children(one.pid)]
            os.kill(one.pid, signal.SIGKILL)
            await until(partial(have_ended, family), 10, "it has ended")
            await one.stop()
        await until(lambda: cluster.crowd.outside() == [], 60, "all clients are back")
        # The others have all connections now, and evenly: nothing has to move.
        assert await cluster.shed() == 0
        started = time.monotonic()
        await asyncio.gather(*(one.start() for one in victims))
        took = await until_async(cluster.are_even, 150, "all four are within 15 % of the mean")
        print(f"\ntwo replicas killed and back: even after {took:.0f} s")
        await assert_nothing_lost(cluster.crowd)
        assert set(cluster.crowd.codes(started)) == {3011}
        assert max(cluster.crowd.moves(started)) == 1
