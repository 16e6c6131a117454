"""Eight connections attack a worker in every way that we know: its other clients lose nothing."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.attacks.kinds import ATTACKS, KEPT_CHANNEL
from tests.harness.client import Client
from tests.harness.cluster import REPOSITORY, Cluster
from tests.harness.crowd import Crowd, Size
from tests.harness.processes import resident_bytes
from tests.harness.under_load import assert_no_traceback, assert_nothing_lost

ATTACKERS = 8
SIZE = Size(subscribers=100, channels=10, workers=1, publishes_per_second=40)
#: How much of its memory a worker may have grown by after ten rounds of all attacks.
GROWTH = 0.05
#: The history that is attacked; channels without a namespace have one as well.
CONFIG = {
    "channel": {
        "namespaces": [{"name": "kept", "history_size": 300, "history_ttl": "3600s"}],
    },
}
#: What every attack must have met, or it attacks nothing: the status of all first answers, and the least
#: number of bytes that came back in a second: one answer to each connection, or those to many commands.
ANSWER, ANSWERS, HISTORIES = 100, 10_000, 1_000_000
MET: Mapping[str, tuple[str, int]] = {
    "rpc": ("101", ANSWERS),
    "ping": ("101", ANSWERS),
    "publish": ("101", ANSWERS),
    "subscribe and unsubscribe": ("101", ANSWERS),
    "history": ("101", HISTORIES),
    "Protobuf, frames of 4,096 empty commands": ("101", ATTACKERS * ANSWER),
    "Protobuf, frames of 4,096 rpcs": ("101", ANSWERS),
    "Protobuf, frames of one rpc": ("101", ANSWERS),
    "ping frames": ("101", ANSWERS),
    "pong frames, not connected": ("101", ATTACKERS * ANSWER),
    "empty continuations, not connected": ("101", ATTACKERS * ANSWER),
    "fragments of one byte": ("101", ANSWERS),
    "half a handshake": ("400", ATTACKERS * ANSWER),
    "handshake after handshake": ("101", ANSWERS),
    "no HTTP": ("400", ANSWERS),
    "requests without waiting for answers": ("404", ANSWERS),
    "a body without end": ("404", ATTACKERS * ANSWER),
    "a body of chunks of one byte": ("404", ATTACKERS * ANSWER),
    "the head of a second request without end": ("404", ATTACKERS * ANSWER),
    "one byte at a time": ("101", ANSWERS),
}


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
        print(f"{kind}: {sent}, {resident_bytes(pids[0]) / 2**20:.1f} MiB resident")
        status, least = MET[kind]
        assert sent["statuses"].keys() == {status}, kind
        assert sent["bytes_read"] >= least, kind
        assert [worker.pid for worker in cluster.workers()] == pids, kind
        assert not crowd.moves(started).keys() - {0}, (kind, crowd.moves(started))


async def fill_history(cluster: Cluster) -> None:
    """Publish what the attack "history" asks for."""
    publisher = Client(cluster.worker_port(0))
    await publisher.start()
    await publisher.connected()
    for _ in range(300):
        await publisher.publish(KEPT_CHANNEL, "x" * 1_000)
    await publisher.close()


@pytest.mark.timeout(240)
async def test_attacks_close_no_other_client_and_lose_nothing(tmp_path: Path):
    async with Cluster(tmp_path / "run", workers=SIZE.workers, config=CONFIG) as cluster:
        await fill_history(cluster)
        crowd = Crowd(cluster.client_port, SIZE)
        await crowd.gather()
        crowd.begin_publishing()
        await crowd.traffic()
        await attack_in_every_way(cluster, crowd, 1.0)
        await assert_nothing_lost(crowd)
        metrics = await cluster.metrics()
        assert metrics.total("app_worker_restarts_total") == 0
        assert metrics.total("app_client_errors_total", code="102") == 0
        assert metrics.total("app_stream_reads_total", result="cut") > 0
        await crowd.close()
    assert_no_traceback(cluster)


@pytest.mark.full
@pytest.mark.timeout(900)
async def test_ten_rounds_of_attacks_leave_the_memory_as_it_was(tmp_path: Path):
    async with Cluster(tmp_path / "run", workers=SIZE.workers, config=CONFIG) as cluster:
        await fill_history(cluster)
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
