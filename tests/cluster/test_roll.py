"""A roll replaces every worker and no client loses a message, a subscription, or more than two connections."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.harness.client import Client
from tests.harness.cluster import REPOSITORY, Cluster
from tests.harness.crowd import Size
from tests.harness.processes import command_line
from tests.harness.under_load import PAIR, assert_nothing_lost, cluster_under_load, every_size
from tests.harness.waiting import until, until_async

OLD_VERSION, NEW_VERSION = "0.0.1", "99.0.0"
# The package, and what it reads beside itself in a checkout.
PARTS = ("cluster", "nginx")


@asynccontextmanager
async def readiness_watched(cluster: Cluster) -> AsyncIterator[list[bool]]:
    """Ask /ready ten times a second for the length of the block."""
    answers: list[bool] = []

    async def ask() -> None:
        while True:
            answers.append(await cluster.is_ready())
            await asyncio.sleep(0.1)

    task = asyncio.create_task(ask())
    try:
        yield answers
    finally:
        task.cancel()


@every_size
async def test_roll_loses_nothing(tmp_path: Path, size: Size):
    async with cluster_under_load(tmp_path, size) as (cluster, crowd):
        before = await cluster.metrics()
        started = time.monotonic()
        async with readiness_watched(cluster) as answers:
            took = await cluster.roll(within=120)
        await assert_nothing_lost(crowd)
        print(f"roll of {size.workers} workers in {took:.1f} s")
        assert max(crowd.moves(started)) <= 2
        assert set(crowd.codes(started)) == {3001}
        assert all(answers)
        assert crowd.refusals() == {}
        # A worker's clients come back over the drain window of 3 s, not all at once.
        assert crowd.busiest_second(started) <= 0.75 * len(crowd.clients) / size.workers
        after = await cluster.metrics()
        exits = "app_worker_exits_total"
        clean = after.total(exits, outcome="clean") - before.total(exits, outcome="clean")
        assert clean == size.workers
        await cluster.shows("app_active_connections", len(crowd.clients))
        assert after.total("app_shutdown_duration_seconds_count") == size.workers


@pytest.mark.full
async def test_rolls_asked_for_during_a_roll_lose_nothing(tmp_path: Path):
    async with cluster_under_load(tmp_path, PAIR) as (cluster, crowd):
        old = {worker.pid for worker in cluster.workers()}
        cluster.signal(signal.SIGHUP)
        await until(lambda: {w.pid for w in cluster.workers()} != old, 15, "the roll began")
        await cluster.roll(within=90)
        await assert_nothing_lost(crowd)


@pytest.mark.parametrize("number", [signal.SIGTTIN, signal.SIGTTOU])
async def test_adding_or_removing_a_worker_loses_nothing(tmp_path: Path, number: signal.Signals):
    async with cluster_under_load(tmp_path, PAIR) as (cluster, crowd):
        wanted = PAIR.workers + (1 if number == signal.SIGTTIN else -1)
        cluster.signal(number)
        await until(lambda: len(cluster.workers()) == wanted, 20, f"{wanted} workers")
        await until_async(cluster.is_ready, 10, "ready")
        await assert_nothing_lost(crowd)


def write_version(tree: Path, version: str) -> None:
    """Copy the package as it stands into a tree and give it another version."""
    for part in PARTS:
        if (REPOSITORY / part).exists():
            shutil.copytree(
                REPOSITORY / part,
                tree / part,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
    front = tree / "cluster" / "__init__.py"
    lines = front.read_text().splitlines()
    place = next(n for n, line in enumerate(lines) if line.startswith("__version__"))
    lines[place] = f'__version__ = "{version}"'
    front.write_text("\n".join(lines) + "\n")


async def version_at(port: int) -> str:
    """The version a worker names in its connect reply."""
    client = await Client(port).start()
    version: str = client.result["version"]
    await client.close()
    return version


async def test_an_old_and_a_new_version_share_one_store_during_a_roll(tmp_path: Path):
    """An upgrade in place: the files change under a running supervisor, then HUP loads them.

    Until there is a second layout, the older version differs in its version string only; what the story
    holds is that workers of two builds serve one crowd from one store at the same time.
    """
    tree = tmp_path / "tree"
    tree.mkdir()
    write_version(tree, OLD_VERSION)
    async with cluster_under_load(tmp_path, PAIR, source=tree) as (cluster, crowd):
        assert await version_at(cluster.port) == OLD_VERSION
        write_version(tree, NEW_VERSION)
        old = {worker.pid for worker in cluster.workers()}
        cluster.signal(signal.SIGHUP)

        def is_mixed() -> bool:
            return bool({worker.pid for worker in cluster.workers()} - old)

        await until(is_mixed, 15, "a worker of the new version runs beside the old ones")
        await until(
            lambda: not {worker.pid for worker in cluster.workers()} & old, 90, "all are new"
        )
        await until_async(cluster.is_ready, 15, "ready")
        await assert_nothing_lost(crowd)
        assert await version_at(cluster.port) == NEW_VERSION
        versions = [client.result["version"] for client in crowd.clients]
        assert set(versions) <= {OLD_VERSION, NEW_VERSION}
        assert NEW_VERSION in versions


async def test_a_roll_with_a_longer_ping_updates_nginx_s_time_outs(tmp_path: Path):
    """Otherwise nginx closes every client that sends nothing between two pings."""
    async with Cluster(tmp_path / "run", workers=1) as cluster:
        words = command_line(cluster.child("nginx"))
        found = re.search(r"\S+nginx\.conf", " ".join(words))
        assert found, words
        conf = Path(found[0])
        file = tmp_path / "run" / "config.json"
        document = json.loads(file.read_text())
        document.setdefault("client", {})["ping_interval"] = "40s"
        assert "proxy_read_timeout 120000ms;" not in conf.read_text()
        file.write_text(json.dumps(document))
        await cluster.roll()
        await until(
            lambda: "proxy_read_timeout 120000ms;" in conf.read_text(),
            10,
            "nginx has the new time-out",
        )
