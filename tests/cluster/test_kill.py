"""Workers that die or hang: their clients come back elsewhere, at a pace, and miss nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from tests.harness.crowd import Size
from tests.harness.processes import children, is_running
from tests.harness.under_load import PAIR, assert_nothing_lost, cluster_under_load, every_size
from tests.harness.waiting import until, until_async

HUNG_AFTER = 5.0


@every_size
async def test_worker_killed_clients_recover(tmp_path: Path, size: Size):
    async with cluster_under_load(tmp_path, size) as (cluster, crowd):
        before = await cluster.metrics()
        victim = cluster.workers()[0]
        started = time.monotonic()
        os.kill(victim.pid, signal.SIGKILL)
        await until(lambda: not is_running(victim.pid), 5, "the worker has ended")
        await until(lambda: len(cluster.workers()) == size.workers, 15, "it is replaced")
        await until_async(cluster.is_ready, 15, "ready")
        await assert_nothing_lost(crowd)
        # Only the dead worker's clients moved, and each once.
        assert max(crowd.moves(started)) <= 1
        assert crowd.moves(started)[1] <= len(crowd.clients) / 2
        after = await cluster.shows("app_active_connections", len(crowd.clients))
        name = "app_worker_restarts_total"
        assert after.total(name) - before.total(name) == 1
        opened = "app_connections_opened_total"
        assert after.total(opened) >= before.total(opened)


@every_size
async def test_a_storm_after_a_kill_arrives_at_the_configured_pace(tmp_path: Path, size: Size):
    # Far fewer a second than come at once, or the limit would have nothing to do.
    rate = max(4, size.subscribers // 100)
    config = {"client": {"connection_rate_limit": rate}}
    async with cluster_under_load(tmp_path, size, config=config) as (cluster, crowd):
        started = time.monotonic()
        os.kill(cluster.workers()[0].pid, signal.SIGKILL)
        await until(lambda: len(cluster.workers()) == size.workers, 15, "it is replaced")
        await assert_nothing_lost(crowd, within=120)
        assert (await cluster.metrics()).total(
            "app_connections_rejected_total", reason="rate_limit"
        ) > 0
        # A token bucket lets one second's worth through at once, and then one more in that second.
        assert crowd.busiest_second(started) <= 2 * rate * size.workers
        assert max(crowd.moves(started)) <= 1


async def test_a_hung_worker_is_replaced_and_its_clients_recover(tmp_path: Path):
    async with cluster_under_load(tmp_path, PAIR) as (cluster, crowd):
        victim = cluster.workers()[0]
        os.kill(victim.pid, signal.SIGSTOP)
        took = await until(lambda: not is_running(victim.pid), 20, "the hung worker is killed")
        assert took > HUNG_AFTER - 1.5
        await until(lambda: len(cluster.workers()) == PAIR.workers, 15, "it is replaced")
        await until_async(cluster.is_ready, 15, "ready")
        await assert_nothing_lost(crowd, within=60)


async def test_every_worker_killed_at_once_loses_nothing(tmp_path: Path):
    async with cluster_under_load(tmp_path, PAIR) as (cluster, crowd):
        old = cluster.workers()
        for worker in old:
            os.kill(worker.pid, signal.SIGKILL)
        await until(lambda: not any(is_running(w.pid) for w in old), 5, "all have ended")
        await until_async(cluster.is_ready, 20, "ready")
        await assert_nothing_lost(crowd, within=60)


async def test_a_killed_nginx_is_replaced_and_clients_recover(tmp_path: Path):
    async with cluster_under_load(tmp_path, PAIR) as (cluster, crowd):
        victim = cluster.child("nginx")
        started = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        await until(lambda: not is_running(victim), 5, "nginx has ended")
        # Its own worker process goes on until the supervisor has found it: no client may be left there.
        await until(lambda: crowd.moves(started)[0] == 0, 20, "every client has moved")
        await assert_nothing_lost(crowd, within=60)
        assert cluster.child("nginx") != victim


@pytest.mark.full
async def test_a_quiet_cluster_keeps_its_processes(tmp_path: Path):
    """Longer than the limits of booting (30 s) and of silence (5 s): no process may be taken for hung."""
    async with Cluster(tmp_path / "run", workers=2) as cluster:
        before = children(cluster.pid)
        await asyncio.sleep(45)
        assert children(cluster.pid) == before
