"""One stack for all stories: it is started once."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator

import pytest

from tests.compose.stack import Stack, missing
from tests.harness.cluster import REPOSITORY

# As in story.yml.
COMPRESS = 15


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if reason := missing():
        pytest.skip(f"no Docker engine with Compose: {reason}")
    subprocess.run([REPOSITORY / "docker" / "prepare.sh"], check=True, capture_output=True)
    target = tmp_path_factory.mktemp("drill") / "drill.toml"
    text = (REPOSITORY / "docker" / "drill.toml").read_text(encoding="utf-8")
    pace = f'profile = "compressed"\ncompress = {COMPRESS}'
    target.write_text(text.replace('profile = "production"', pace))
    stack = Stack(target)
    yield stack
    asyncio.run(stack.down())
