"""Every command of docs/seed-commands.md and docs/operations.md prints what the page shows."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.architecture.tree import ROOT
from tests.docs.pages import Block, blocks
from tests.docs.test_examples import assert_shown, run
from tests.harness.cluster import Cluster
from tests.harness.waiting import until_async
from tests.integration.monitoring import Monitoring

PAGES = ("seed-commands.md", "operations.md")
MARK = "tests/integration/test_seed_commands.py"
EXAMPLES = [b for name in PAGES for b in blocks(ROOT / "docs" / name) if MARK in b.exclusion]
SEED_COMMANDS = 19


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[Cluster, Monitoring, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("seed")
    state = folder / "state"
    async with Cluster(folder / "cluster", workers=1) as cluster:
        monitoring = Monitoring(folder, apps=(cluster.admin_port,), compress=15)
        monitoring.data_dir = state / "ws-cluster" / "monitoring"
        async with monitoring:

            async def is_alive() -> bool:
                return bool((await monitoring.get("/watchdog"))["is_alive"])

            await until_async(is_alive, 30, "the dead man's switch has received the Watchdog")
            yield cluster, monitoring, {"XDG_STATE_HOME": str(state), "VENV": str(program(folder))}


def program(folder: Path) -> Path:
    """An environment in which `ws-cluster` is this checkout's."""
    binary = folder / "venv" / "bin" / "ws-cluster"
    binary.parent.mkdir(parents=True)
    binary.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cluster "$@"\n')
    binary.chmod(0o755)
    return binary.parents[1]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("block", EXAMPLES, ids=str)
async def test_a_command_prints_what_the_page_shows(
    block: Block, stack: tuple[Cluster, Monitoring, dict[str, str]]
):
    cluster, monitoring, environment = stack
    ports = {
        "8000": cluster.port,
        "8001": cluster.admin_port,
        "9090": monitoring.prometheus,
        "9093": monitoring.alertmanager,
        "9099": monitoring.receiver,
    }
    text = re.sub(r"\b(8000|8001|909[039])\b", lambda found: str(ports[found[1]]), block.text)
    lines = text.splitlines()
    commands = [line[2:] for line in lines if line.startswith("$ ")]
    wanted = [line for line in lines if line.strip() and not line.startswith("$ ")]
    command = ["bash", "-euo", "pipefail", "-c", "\n".join(commands)]
    environment = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
    assert_shown(wanted, await asyncio.to_thread(run, command, ROOT, **environment))


def test_every_command_of_the_seed_has_its_row():
    page = (ROOT / "docs" / "seed-commands.md").read_text()
    rows = re.findall(r"(?m)^\| (\d+) \|", page)
    assert rows == [str(number) for number in range(1, SEED_COMMANDS + 1)]
    assert EXAMPLES
