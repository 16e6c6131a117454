"""One cluster with a fake monitoring for the tests of the console."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.console.console_cluster import ConsoleCluster, config_for
from tests.console.fake_monitoring import FakeMonitoring
from tests.harness.cluster import Cluster


@pytest.fixture(scope="module")
def services() -> Iterator[FakeMonitoring]:
    """A fake Prometheus and Alertmanager."""
    with FakeMonitoring() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_cluster(
    services: FakeMonitoring, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ConsoleCluster]:
    """A running cluster that uses them."""
    directory: Path = tmp_path_factory.mktemp("console")
    async with Cluster(directory, workers=2, config=config_for(services)) as cluster:
        yield ConsoleCluster(cluster, services)


@pytest.fixture
def console_cluster(running_cluster: ConsoleCluster) -> ConsoleCluster:
    """The same cluster, without alerts of other tests."""
    running_cluster.monitoring.clear()
    return running_cluster
