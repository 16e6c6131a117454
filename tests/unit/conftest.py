"""Event loops for the tests of the server and for all others; the command line in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from cluster.cli import main
from tests.unit.monitor_services import Ask, Services, running


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Any]:
    """uvloop for the WebSocket server: its transports differ from those of asyncio."""
    if item.path.stem.startswith("test_websocket"):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
def services() -> Iterator[Services]:
    with running() as one:
        one.rule("ServiceDown")
        one.rule("SlowShutdownTime", "warning")
        one.rule("HighSessionCount", "info")
        one.rule("Watchdog", "none")
        yield one


@pytest.fixture
def ask(services: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    def run(*words: str) -> tuple[int, str, str]:
        where = ["--prometheus-url", services.url, "--alertmanager-url", services.url]
        try:
            code = main(["monitor", *words, *where, "--data-dir", str(tmp_path)])
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run
