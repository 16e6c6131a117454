"""A cluster with fake workers per test, and a real one with strict limits per module.

Guarantee: no process of either is left afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.client import Client
from tests.harness.cluster import Cluster
from tests.harness.raw_client import STRICT_CONFIG
from tests.harness.under_load import assert_no_traceback
from tests.harness.waiting import until
from tests.integration.running import Running


@pytest.fixture
def a_cluster(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def make(**how: Any) -> Running:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(Running(folder, **how))
        return started[-1]

    yield make
    for running in started:
        running.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for the module: after whatever one test sends, it must serve the next.

    At the end nothing that the clients did wrong has been counted as an error of the service.
    """
    started = Cluster(tmp_path_factory.mktemp("strict") / "run", workers=1, config=STRICT_CONFIG)
    asyncio.run(started.start())
    try:
        yield started
        scrape = asyncio.run(started.metrics())
        assert scrape.total("app_errors_total") == 0
        assert scrape.total("app_worker_restarts_total") == 0
    finally:
        asyncio.run(started.stop())
    assert_no_traceback(started)


@pytest.fixture
async def neighbour(cluster: Cluster) -> AsyncIterator[Client]:
    """Another client of the same worker, which must be served as if nothing happened."""
    client = Client(cluster.worker_port(0), name="neighbour")
    await client.start()
    got: list[dict[str, Any]] = []
    client.subscribe("calm", lambda _, publication: got.append(publication))
    await until(lambda: client.is_whole, 5, "the neighbour is in its channel")
    yield client
    await client.publish("calm", "still here")
    await until(lambda: len(got) > 0, 5, "the neighbour receives its own publication")
    assert client.history.attempts == 1
    await client.close()
