"""Load and drills in the containers, by the services of their profiles."""

from __future__ import annotations

import os

import aiohttp
import pytest

from tests.compose.stack import CommandFailed, Stack
from tests.harness.waiting import until_async

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

#: COMPOSE_DRILLS=--seed runs the eleven of the first version, which takes about eight minutes.
DRILLS = os.environ.get("COMPOSE_DRILLS", "ServiceDown HighErrorRate HighDiskUsage").split()
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


async def test_drills_break_the_containers_and_mend_them(stack: Stack):
    await stack.ready(2)
    words = ("drill", "--target", "/etc/ws-cluster/drill.toml", "--yes", "--report", "/report")
    said = await stack.compose(
        *("--profile", "drill", "run", "--rm", "--no-TTY", "drill"),
        *(*words, *DRILLS),
        within=800.0,
    )
    print(said)
    count = 11 if DRILLS == ["--seed"] else len(DRILLS)
    assert f"{count} of {count} alerts proven" in said
