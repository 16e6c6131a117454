"""One stack for all stories: it is started once."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator

import pytest

from tests.compose.stack import Stack, missing
from tests.harness.cluster import REPOSITORY


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    if reason := missing():
        pytest.skip(f"no Docker engine with Compose: {reason}")
    subprocess.run([REPOSITORY / "docker" / "prepare.sh"], check=True, capture_output=True)
    stack = Stack()
    yield stack
    asyncio.run(stack.down())
