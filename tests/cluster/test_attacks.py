"""Eight connections attack a worker in every way that we know: its other clients lose nothing."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.attacks.kinds import ATTACKS
from tests.harness.cluster import REPOSITORY, Cluster
from tests.harness.crowd import Crowd, Size
from tests.harness.processes import resident_bytes
from tests.harness.under_load import assert_no_traceback, assert_nothing_lost

ATTACKERS = 8
SIZE = Size(subscribers=100, channels=10, workers=1, publishes_per_second=40)
#: How much of its memory a worker may have grown by after ten rounds of all attacks.
GROWTH = 0.05


async def attack(kind: str, port: int, seconds: float) -> dict[str, Any]:
    """Attack a port for some seconds, from a process of its own; returns what was sent."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.attacks.attacker", kind,
        "--port", str(port), "--connections", str(ATTACKERS), "--seconds", str(seconds),
        cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    sent: dict[str, Any] = json.loads(said)
    return sent


async def attack_in_every_way(cluster: Cluster, crowd: Crowd, seconds: float) -> None:
    started, pids = time.monotonic(), [worker.pid for worker in cluster.workers()]
    for kind in ATTACKS:
        sent = await attack(kind, cluster.worker_port(0), seconds)
        assert sent["bytes_sent"] > 0, kind
        assert [worker.pid for worker in cluster.workers()] == pids, kind
        assert not crowd.moves(started).keys() - {0}, (kind, crowd.moves(started))
        resident = resident_bytes(pids[0]) / 2**20
        print(f"{kind}: {sent}, {resident:.1f} MiB resident")


@pytest.mark.timeout(240)
async def test_attacks_close_no_other_client_and_lose_nothing(tmp_path: Path):
    async with Cluster(tmp_path / "run", workers=SIZE.workers) as cluster:
        crowd = Crowd(cluster.client_port, SIZE)
        await crowd.gather()
        crowd.begin_publishing()
        await crowd.traffic()
        await attack_in_every_way(cluster, crowd, 1.0)
        await assert_nothing_lost(crowd)
        assert (await cluster.metrics()).total("app_worker_restarts_total") == 0
        await crowd.close()
    assert_no_traceback(cluster)


@pytest.mark.full
@pytest.mark.timeout(900)
async def test_ten_rounds_of_attacks_leave_the_memory_as_it_was(tmp_path: Path):
    async with Cluster(tmp_path / "run", workers=SIZE.workers) as cluster:
        crowd = Crowd(cluster.client_port, SIZE)
        await crowd.gather()
        crowd.begin_publishing()
        pid = cluster.workers()[0].pid
        # What the first round makes the allocator keep is there from then on.
        await attack_in_every_way(cluster, crowd, 2.0)
        before = resident_bytes(pid)
        for _ in range(10):
            await attack_in_every_way(cluster, crowd, 2.0)
        after = resident_bytes(pid)
        print(f"resident: {before / 2**20:.1f} MiB, then {after / 2**20:.1f} MiB")
        assert after <= before * (1 + GROWTH)
        await assert_nothing_lost(crowd)
        await crowd.close()
    assert_no_traceback(cluster)
