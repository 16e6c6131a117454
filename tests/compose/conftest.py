"""One stack for all stories: it is started once. The drills have a second one beside it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.stack import Stack, copied, missing

# As in story.yml.
COMPRESS = 15


def _made(folder: Path, name: str) -> Stack:
    """A stack with keys, in a copy of docker/, where time passes faster."""
    if reason := missing():
        pytest.skip(f"no Docker engine with Compose: {reason}")
    folder = copied(folder)
    subprocess.run([folder / "prepare.sh"], check=True, capture_output=True)
    target = folder / "drill.toml"
    text = target.read_text(encoding="utf-8")
    pace = f'profile = "compressed"\ncompress = {COMPRESS}'
    target.write_text(text.replace('profile = "production"', pace))
    return Stack(folder, target, name)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = _made(tmp_path_factory.mktemp("stack"), "test")
    yield stack
    asyncio.run(stack.down())


@pytest.fixture
def second_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = _made(tmp_path_factory.mktemp("second-stack"), "test-second")
    yield stack
    asyncio.run(stack.down())
