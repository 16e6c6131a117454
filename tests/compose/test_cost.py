"""What the containers cost: size, time to ready, memory, and the health check's processor time."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from tests.compose.stack import Stack, docker
from tests.harness.waiting import until_async

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]

CHECKS = 20
#: Of a core, that the checks of one container may take.
SHARE = 0.01


async def test_an_idle_replica_costs_little(stack: Stack):
    await stack.ready(2)
    [replica, _] = await stack.containers("app")
    print(f"the image has {image_bytes(replica['Image']) / 1e6:.0f} MB")
    print(f"a replica is ready after {await seconds_to_ready(replica['Id']):.1f} s")
    await stack.ready(2)
    print("memory of the idle containers\n" + await stack.memory())
    interval = replica["Config"]["Healthcheck"]["Interval"] / 1e9
    seconds = seconds_of_a_check(replica["Id"])
    share = seconds / interval
    print(
        f"a health check takes {seconds * 1e3:.1f} ms of a core every {interval:g} s: {share:.2%}"
    )
    assert share < SHARE


def image_bytes(image: str) -> int:
    [shown] = json.loads(docker("image", "inspect", image))
    return int(shown["Size"])


async def seconds_to_ready(container: str) -> float:
    """From the start of a container until its check says that it is ready."""
    await asyncio.to_thread(docker, "stop", container)
    began = time.monotonic()
    await asyncio.to_thread(docker, "start", container)

    async def is_ready() -> bool:
        check = ("exec", container, "sh", "-c", "ws-cluster-healthcheck >&2 && echo ready")
        return "ready" in await asyncio.to_thread(docker, *check, fails=True)

    await until_async(is_ready, 60, "the replica is ready")
    return time.monotonic() - began


def seconds_of_a_check(container: str) -> float:
    """Processor time of the program, without what the engine needs to start it in the container."""
    script = f"TIMEFORMAT='%U %S'; time for n in {{1..{CHECKS}}}; do ws-cluster-healthcheck; done"
    said = docker("exec", container, "bash", "-c", f"{{ {script}; }} 2>&1")
    return sum(map(float, said.split())) / CHECKS
