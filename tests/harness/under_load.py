"""A cluster with subscribers in its channels, publishers at work, and a ledger of every publication."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.cluster import REPOSITORY, Cluster
from tests.harness.crowd import Crowd, Size
from tests.harness.ledger import Report

# LOAD_SIZE=<subscribers>x<channels>x<workers>x<publishes per second> replaces the small size.
_SMALL = os.environ.get("LOAD_SIZE", "200x10x4x40")
SMALL = Size(*map(int, _SMALL.split("x")))
# For tests that do not depend on the number of workers.
PAIR = Size(subscribers=100, channels=10, workers=2, publishes_per_second=40)
FULL = Size(subscribers=2000, channels=50, workers=4, publishes_per_second=200)

every_size = pytest.mark.parametrize(
    "size",
    [
        pytest.param(SMALL, id="small"),
        pytest.param(FULL, id="full", marks=[pytest.mark.full, pytest.mark.timeout(600)]),
    ],
)


@contextlib.asynccontextmanager
async def cluster_under_load(
    directory: Path,
    size: Size,
    *,
    config: dict[str, Any] | None = None,
    redis_urls: tuple[str, ...] = (),
    source: Path = REPOSITORY,
    token_key: str = "",
) -> AsyncIterator[tuple[Cluster, Crowd]]:
    """Start a cluster of this size with its clients; a failure carries what the clients saw."""
    cluster = Cluster(
        directory / "run",
        workers=size.workers,
        config=config,
        redis_urls=redis_urls,
        source=source,
    )
    async with cluster:
        crowd = Crowd(cluster.client_port, size, token_key=token_key)
        async with described(crowd):
            await crowd.gather()
            crowd.begin_publishing()
            await crowd.traffic()
            yield cluster, crowd
    assert_no_traceback(cluster)


@contextlib.asynccontextmanager
async def described(crowd: Crowd) -> AsyncIterator[None]:
    """Add to an error what the crowd has seen, and close the crowd at the end."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"-- the crowd --\n{crowd.summary()}\noutside: {crowd.outside()[:5]}")
        raise
    finally:
        await crowd.close()


def assert_no_traceback(cluster: Cluster) -> None:
    """No process of the cluster wrote a traceback."""
    assert "Traceback (most recent call last)" not in cluster.log(), cluster.log_tail(120)


async def assert_nothing_lost(crowd: Crowd, within: float = 30.0) -> Report:
    """Wait until all clients are back and publications flow; then the ledger has no fault."""
    await crowd.traffic(within)
    report = await crowd.settle(within)
    assert crowd.outside() == []
    assert report.is_clean, str(report)
    exchanged = crowd.exchanged()
    print(f"\n{crowd.size}: {report}; {crowd.summary()}; {exchanged}")
    assert all(exchanged.values()), exchanged
    return report
