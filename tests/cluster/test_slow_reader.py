"""One subscriber of many stops reading: it is closed with 3008, and the others do not notice."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from tests.harness.crowd import Crowd, Size
from tests.harness.processes import resident_bytes
from tests.harness.under_load import assert_no_traceback, assert_nothing_lost, every_size
from tests.harness.waiting import until, until_async

MIB = 1024 * 1024
FILLER = "x" * 16384
QUEUE = 256 * 1024
# What a worker may grow by while one reader fills its queue, the noise of the allocator included.
MEMORY_ALLOWANCE = 32 * MIB
QUIET = 5.0


async def fat_publications(crowd: Crowd, channel: str, stop: asyncio.Event) -> None:
    """Publish large publications one after another to a channel of few."""
    publisher = crowd.publishers[0]
    while not stop.is_set():
        await crowd.publish_once(publisher, channel, FILLER)
        await asyncio.sleep(0.02)


@pytest.mark.alone
@every_size
async def test_slow_reader_is_closed_and_no_other_notices(tmp_path: Path, size: Size):
    config = {"client": {"queue_max_size": QUEUE}}
    async with Cluster(tmp_path / "run", workers=2, config=config, has_nginx=False) as cluster:
        crowd = Crowd(cluster.client_port, size)
        await crowd.gather()
        slow = crowd.subscribers[-1]
        near = crowd.subscribers[:5]
        for client in (slow, *near):
            crowd.watch(client, "fat")
        crowd.begin_publishing()
        stop = asyncio.Event()
        task = asyncio.create_task(fat_publications(crowd, "fat", stop))
        quiet_from = time.monotonic()
        await asyncio.sleep(QUIET)
        p99_before = crowd.latency(0.99, quiet_from)
        pid = cluster.workers()[0].pid
        memory_before = resident_bytes(pid)

        slow.wire.stop_reading()
        for channel in slow.subscriptions:
            crowd.ledger.excused(slow.name, channel)
        stopped_at = time.monotonic()

        async def is_closed() -> bool:
            scrape = await cluster.metrics()
            return scrape.total("app_connections_closed_total", code="3008") == 1

        await until_async(is_closed, 60, "the slow reader is closed with 3008")
        scrape = await cluster.metrics()
        assert scrape.total("app_slow_consumers_total") == 1
        assert resident_bytes(pid) - memory_before < MEMORY_ALLOWANCE
        await asyncio.sleep(max(0.0, stopped_at + QUIET - time.monotonic()))
        p99_after = crowd.latency(0.99, stopped_at)
        assert p99_after <= max(3 * p99_before, 0.1), (p99_before, p99_after)

        stop.set()
        await task
        slow.wire.resume_reading()
        await until(lambda: bool(slow.history.codes(stopped_at)), 20, "it finds itself closed")
        await assert_nothing_lost(crowd)
        # When it reads again it finds the close frame, or a reset if the server no longer waited.
        assert set(slow.history.codes(stopped_at)) <= {3008, None}
        others = [client for client in crowd.clients if client is not slow]
        assert not any(client.history.codes(stopped_at) for client in others)
        print(f"the slow reader saw {dict(slow.history.codes(stopped_at))}")
        print(f"p99 {p99_before:.4f} s before, {p99_after:.4f} s after")
        await crowd.close()
    assert_no_traceback(cluster)
