"""Runs Locust with the load test as a program, and reads what it wrote."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.architecture.tree import ROOT

LIMIT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Ended:
    """One run that has ended."""

    code: int
    text: str
    ledger: dict[str, Any]


async def locust(
    host: str,
    folder: Path,
    *words: str,
    file: str = "loadtest/locustfile.py",
    meanwhile: Callable[[dict[str, Any]], Awaitable[None]] | None = None,
    ending: Callable[[asyncio.subprocess.Process], Awaitable[None]] | None = None,
) -> Ended:
    """Run Locust without its web page; it must end by itself.

    Args:
        words: further arguments.
        file: the locustfile.
        meanwhile: called once with the ledger of that moment, when users are connected.
        ending: called once with the process, when users are connected.
    """
    path = folder / "ledger.json"
    command = [sys.executable, "-m", "locust", "-f", file, "--headless"]
    command += ["--only-summary", "--host", host, "--ledger-file", str(path), *words]
    running = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    reading = asyncio.ensure_future(running.communicate())
    try:
        if meanwhile is not None:
            await meanwhile(await connected(path, running))
        if ending is not None:
            await connected(path, running)
            await ending(running)
        async with asyncio.timeout(LIMIT_SECONDS):
            output, _ = await asyncio.shield(reading)
    finally:
        if running.returncode is None:
            running.kill()
        await reading
    assert running.returncode is not None
    return Ended(running.returncode, output.decode(), read(path))


async def connected(path: Path, running: asyncio.subprocess.Process) -> dict[str, Any]:
    """The ledger as soon as a user is connected and a publication was delivered."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            seen = read(path)
            if seen.get("connected") and seen.get("got"):
                return seen
            assert running.returncode is None, "it ended before anybody was connected"
            await asyncio.sleep(0.1)


def read(path: Path) -> dict[str, Any]:
    """The ledger; empty as long as there is none."""
    if not path.exists():
        return {}
    document: dict[str, Any] = json.loads(path.read_text())
    return document
