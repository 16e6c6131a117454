"""A minute of faults in random order: no acknowledged publication is lost.

The seed is printed; CHAOS_SEED repeats a run as far as the timing of processes allows.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from tests.harness.crowd import Size
from tests.harness.processes import held
from tests.harness.under_load import assert_nothing_lost, cluster_under_load
from tests.harness.waiting import until_async

SIZE = Size(subscribers=400, channels=20, workers=3, publishes_per_second=100)
SECONDS = 60.0
CALM_BETWEEN = (0.5, 5.0)
# More would exceed the restart budget of a slot, which another test covers.
MOST_KILLS_OF_WORKERS = 6


async def kill_a_worker(cluster: Cluster, dice: random.Random) -> None:
    os.kill(dice.choice(cluster.workers()).pid, signal.SIGKILL)


async def kill_valkey(cluster: Cluster, dice: random.Random) -> None:
    os.kill(cluster.child("valkey"), signal.SIGKILL)


async def kill_nginx(cluster: Cluster, dice: random.Random) -> None:
    os.kill(cluster.child("nginx"), signal.SIGKILL)


async def pause_valkey(cluster: Cluster, dice: random.Random) -> None:
    with held(cluster.child("valkey")):
        await asyncio.sleep(dice.uniform(0.2, 3.0))


async def pause_a_worker(cluster: Cluster, dice: random.Random) -> None:
    with held(dice.choice(cluster.workers()).pid):
        await asyncio.sleep(dice.uniform(0.2, 3.0))


async def roll(cluster: Cluster, dice: random.Random) -> None:
    cluster.signal(signal.SIGHUP)


FAULTS: list[Callable[[Cluster, random.Random], Awaitable[None]]] = [
    kill_a_worker,
    kill_valkey,
    kill_nginx,
    pause_valkey,
    pause_a_worker,
    roll,
]


@pytest.mark.full
@pytest.mark.timeout(300)
async def test_a_minute_of_faults_loses_nothing(tmp_path: Path):
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(10**6)))
    print(f"CHAOS_SEED={seed}")
    dice = random.Random(seed)
    async with cluster_under_load(tmp_path, SIZE) as (cluster, crowd):
        kills = 0
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            fault = dice.choice(FAULTS)
            kills += fault is kill_a_worker
            if fault is not kill_a_worker or kills <= MOST_KILLS_OF_WORKERS:
                print(f"{end - time.monotonic():5.1f} {fault.__name__}")
                try:
                    await fault(cluster, dice)
                except (LookupError, ProcessLookupError):
                    print("      it was down already")
            await asyncio.sleep(dice.uniform(*CALM_BETWEEN))
        await until_async(cluster.is_ready, 60, "ready again")
        await assert_nothing_lost(crowd, within=90)
