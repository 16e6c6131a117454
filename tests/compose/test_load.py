"""Load and drills in the containers, by the services of their profiles."""

from __future__ import annotations

import asyncio
from itertools import chain

import aiohttp
import pytest

from loadtest.drilling.drill_cli import SEED
from tests.compose.stack import CommandFailed, Stack
from tests.harness.waiting import until_async

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

#: Of the eleven alerts of the first version. HighCPUUsage and HighConnectionChurn use up the machine: both are in one half,
#: so that they do not run at the same time.
HALVES = (
    (
        "HighCPUUsage",
        "HighMemoryUsage",
        "HighDiskUsage",
        "HighConnectionChurn",
        "SlowShutdownTime",
        "DeploymentCompleted",
        "ServiceDown",
    ),
    (
        "HighSessionCount",
        "LowMessageThroughput",
        "HighErrorRate",
        "NoActiveConnections",
    ),
)
LOAD = ("--profile", "load")


async def test_locust_runs_the_mixed_scenario_and_loses_nothing(stack: Stack):
    await stack.ready(2)
    await stack.compose(*LOAD, "up", "--detach", "load-worker")
    try:
        # Its exit code says whether the limits of the ledger were met: LOAD_EXPECT.
        await stack.compose(
            *(*LOAD, "run", "--rm", "--no-TTY", "--use-aliases"),
            *("-e", "LOCUST_HEADLESS=true", "-e", "LOCUST_RUN_TIME=15s", "-e", "LOCUST_USERS=60"),
            "load-master",
            within=120.0,
        )
    except CommandFailed as error:
        error.add_note(await stack.logs("load-worker"))
        raise


async def test_the_web_page_of_locust_is_there(stack: Stack):
    await stack.ready(2)
    await stack.compose(*LOAD, "up", "--detach", "load-master", "load-worker")
    try:

        async def is_shown() -> bool:
            try:
                async with (
                    aiohttp.ClientSession() as session,
                    session.get(f"http://127.0.0.1:{stack.locust_port}/") as answer,
                ):
                    return "locust" in (await answer.text()).lower()
            except (OSError, aiohttp.ClientError):
                return False

        await until_async(is_shown, 60, "the page is shown")

        async def is_scraped() -> bool:
            up = [one for one in await stack.targets() if one["health"] == "up"]
            return any(one["labels"]["job"] == "load" for one in up)

        await until_async(is_scraped, 90, "Prometheus scrapes the load test")
    finally:
        await stack.compose(*LOAD, "rm", "--force", "--stop", "load-master", "load-worker")


async def test_the_eleven_drills_break_the_containers_and_mend_them(
    stack: Stack, second_stack: Stack
):
    assert sorted(chain(*HALVES)) == sorted(SEED)
    stacks = (stack, second_stack)
    for one in stacks:
        await one.ready(2)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(drilled(one, half)) for one, half in zip(stacks, HALVES, strict=True)
        ]
    said = [task.result() for task in tasks]
    print("\n".join(said))
    for text, half in zip(said, HALVES, strict=True):
        assert f"{len(half)} of {len(half)} alerts proven" in text


async def drilled(stack: Stack, alerts: tuple[str, ...]) -> str:
    """Prove alerts with the service `drill`; returns what it printed."""
    words = ("drill", "--target", "/etc/ws-cluster/drill.toml", "--yes", "--report", "/report")
    return await stack.compose(
        *("--profile", "drill", "run", "--rm", "--no-TTY", "drill"),
        *(*words, *alerts),
        within=800.0,
    )
