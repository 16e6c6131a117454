"""One cluster, one fake monitoring and one browser for the stories of the console."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.console.fake_monitoring import FakeMonitoring
from tests.console.stage import Stage, config_for
from tests.harness.cluster import Cluster


@pytest.fixture(scope="module")
def services() -> Iterator[FakeMonitoring]:
    """A fake Prometheus and Alertmanager."""
    with FakeMonitoring() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(
    services: FakeMonitoring, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """A running cluster that asks them."""
    directory: Path = tmp_path_factory.mktemp("console")
    async with Cluster(directory, workers=2, config=config_for(services)) as cluster:
        yield Stage(cluster, services)


@pytest.fixture
def stage(standing: Stage) -> Stage:
    """The same, with no alert that another test left."""
    standing.monitoring.clear()
    return standing
