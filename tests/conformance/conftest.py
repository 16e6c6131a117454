"""One cluster for all conformance tests of a module, and each official SDK in turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.conformance.sdk_browser import BROWSER_SDKS, ORIGINS
from tests.conformance.sdk_clients import SDKS, Sdk
from tests.console.browser import needs_browser
from tests.harness.cluster import Cluster, merge
from tests.harness.under_load import assert_no_traceback

CONFIG = {
    # Short enough that a test sees several pings.
    "client": {
        "ping_interval": "1s",
        "pong_timeout": "500ms",
        "allowed_origins": ["https://here.example"],
    },
    "channel": {
        "namespaces": [
            {"name": "plain"},
            {"name": "asked", "history_size": 10, "history_ttl": "60s", "allow_recovery": True},
        ]
    },
}


@pytest.fixture(scope="module")
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A cluster of two workers behind nginx; a module may have a `CONFIG` of its own, and an `APPLICATION`.

    The latter is the text of the Python module `application`.
    """
    directory: Path = tmp_path_factory.mktemp("conformance")
    modules = directory / "modules"
    modules.mkdir()
    (modules / "application.py").write_text(getattr(request.module, "APPLICATION", ""))
    config = getattr(request.module, "CONFIG", CONFIG)
    origins = config.get("client", {}).get("allowed_origins", [])
    config = merge(config, {"client": {"allowed_origins": [*origins, ORIGINS]}})
    started = Cluster(directory / "run", workers=2, modules=modules, config=config)
    asyncio.run(started.start())
    yield started
    asyncio.run(started.stop())
    assert_no_traceback(started)


@pytest.fixture
def url(cluster: Cluster) -> str:
    """The public address."""
    return f"ws://127.0.0.1:{cluster.port}/connection/websocket"


@pytest.fixture(
    params=[*sorted(SDKS), *(pytest.param(name, marks=needs_browser) for name in BROWSER_SDKS)]
)
async def sdk(request: pytest.FixtureRequest) -> AsyncIterator[Sdk]:
    """Each official client in turn."""
    async with (SDKS | BROWSER_SDKS)[request.param]() as sdk:
        yield sdk
