"""One stack for all stories: it is started once."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator

import pytest

from tests.compose.stack import Stack, copied, missing

# As in story.yml.
COMPRESS = 15
#: Ends the stack, as a swarm needs its ports and networks.
LAST = "test_swarm.py"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the stories of Compose before those of Swarm, so that its stack is started once."""
    items.sort(key=lambda item: item.path.name == LAST)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if reason := missing():
        pytest.skip(f"no Docker engine with Compose: {reason}")
    folder = copied(tmp_path_factory.mktemp("stack"))
    subprocess.run([folder / "prepare.sh"], check=True, capture_output=True)
    target = folder / "drill.toml"
    text = target.read_text(encoding="utf-8")
    pace = f'profile = "compressed"\ncompress = {COMPRESS}'
    target.write_text(text.replace('profile = "production"', pace))
    stack = Stack(folder, target)
    yield stack
    asyncio.run(stack.down())
