"""Fixtures of the contract tests: the same tests over the fakes, Valkey and Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.contract.servers import Cluster, Server, binary
from tests.contract.stores import Bench, MemoryBench, RedisBench
from tests.harness.needs import is_missing


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Any]:
    """The loop that workers run on."""
    return {"uvloop": uvloop.new_event_loop}


def program(kind: str) -> str:
    found = binary(kind)
    if found is None:
        is_missing(f"no {kind}-server here: apt-get install redis-server")
    return found


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """One running server of each kind that is here, for tests that leave it as it is."""
    running: dict[str, Server] = {}
    try:
        for kind in ("valkey", "redis"):
            found = binary(kind)
            if found is not None:
                running[kind] = Server(found, tmp_path_factory.mktemp(kind))
                running[kind].start()
        yield running
    finally:
        for server in running.values():
            server.stop()


@pytest.fixture(params=["memory", "valkey", "redis"])
async def bench(request: pytest.FixtureRequest, servers: dict[str, Server]) -> AsyncIterator[Bench]:
    """A store of each kind."""
    made: Bench
    if request.param == "memory":
        made = MemoryBench()
    else:
        program(request.param)
        made = RedisBench([servers[request.param]])
    yield made
    await made.aclose()


@pytest.fixture(params=["valkey", "redis"])
async def real(
    request: pytest.FixtureRequest, servers: dict[str, Server]
) -> AsyncIterator[RedisBench]:
    """A real server of each kind, shared with other tests."""
    program(request.param)
    made = RedisBench([servers[request.param]])
    yield made
    await made.aclose()


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[RedisBench]:
    """A Valkey that belongs to one test alone, which may stop it."""
    with Server(program("valkey"), tmp_path / "own") as server:
        made = RedisBench([server])
        yield made
        await asyncio.wait_for(made.aclose(), 10)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real cluster of three masters."""
    with Cluster(program("valkey"), tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
async def clustered(cluster: Cluster) -> AsyncIterator[RedisBench]:
    """Workers before the cluster, which know one of its nodes."""
    made = RedisBench(cluster.nodes, urls=[cluster.url])
    yield made
    await made.aclose()
