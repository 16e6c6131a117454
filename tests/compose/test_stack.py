"""The containers as a team runs them: up, scaled under load, a replica killed, the store restarted."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from cluster import __version__
from cluster.errors import FORCE_RECONNECT, SHUTDOWN
from tests.compose.stack import CommandFailed, Stack, derived_image, docker, replica_without_a_store
from tests.harness.crowd import Crowd, Size
from tests.harness.processes import free_ports
from tests.harness.under_load import FULL, assert_nothing_lost
from tests.harness.waiting import until_async

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

NEXT_VERSION = "99.0.0"
SIZE = Size(subscribers=200, channels=10, workers=4, publishes_per_second=40)
QUICKLY_BALANCED = Path(__file__).with_name("quickly_balanced.yml")
#: The share of the mean by which a replica may differ after they have balanced themselves, and how soon.
SKEW = 0.15
EVEN_WITHIN = 150


@asynccontextmanager
async def crowd_at(stack: Stack, name: str, size: Size = SIZE) -> AsyncIterator[Crowd]:
    """Clients at the public port, in channels of their own, which check what they receive."""
    crowd = Crowd(stack.port, size)
    crowd.channels = [f"{name}-{channel}" for channel in crowd.channels]
    try:
        await crowd.gather()
        crowd.begin_publishing()
        await crowd.traffic()
        yield crowd
        print(crowd.summary())
    except BaseException as error:
        error.add_note(f"{crowd.summary()}\n{await stack.logs('app')}")
        raise
    finally:
        await crowd.close()


async def get(url: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.read()


def unused_volumes() -> set[str]:
    """The volumes that no container has."""
    return set(docker("volume", "ls", "--quiet", "--filter", "dangling=true").split())


async def test_a_roll_to_a_new_image_loses_nothing(stack: Stack):
    await stack.ready(2)
    image = await asyncio.to_thread(
        derived_image,
        "ws-cluster:test-next",
        "LABEL next=yes",
        "USER 0",
        f"RUN sed -i 's/^__version__.*/__version__ = \"{NEXT_VERSION}\"/'"
        " /opt/ws-cluster/lib/python3*/site-packages/cluster/__init__.py",
        "USER 10001:10001",
    )
    volumes = await asyncio.to_thread(unused_volumes)
    # Its replicas have other options, too; those that serve the clients meanwhile still wait half a minute.
    stack.keep(QUICKLY_BALANCED)
    async with crowd_at(stack, "rolled") as crowd:
        done = await stack.roll(image)
        assert done.returncode == 0, done.stderr
        await assert_nothing_lost(crowd, 60)
        assert max(crowd.moves(0.0)) <= 2
        assert set(crowd.codes()) == {3001}

    async def fires() -> bool:
        labels = f'alertname="DeploymentCompleted",alertstate="firing",version="{NEXT_VERSION}"'
        query = f"last_over_time(ALERTS{{{labels}}}[2m])"
        text = await stack.prometheus(f"/api/v1/query?query={query}")
        return bool(json.loads(text)["data"]["result"])

    await until_async(fires, 60, "DeploymentCompleted has fired for the new version")
    containers = await stack.containers("app")
    assert [one["Config"]["Labels"].get("next") for one in containers] == ["yes", "yes"]
    title = containers[0]["Config"]["Labels"]["org.opencontainers.image.version"]
    assert title == __version__, "the label of the image that the new one is made of"
    # The directories of the old replicas are gone with them.
    assert await asyncio.to_thread(unused_volumes) == volumes


async def test_a_team_starts_it_scales_it_and_loses_nothing(stack: Stack):
    stack.keep(QUICKLY_BALANCED)
    await stack.up(2)
    status, body = await get(f"http://127.0.0.1:{stack.port}/metrics")
    assert status == 200
    assert b"app_active_connections" in body
    for container in await stack.containers("app"):
        labels = container["Config"]["Labels"]
        assert labels["org.opencontainers.image.version"] == __version__
        revision = labels["org.opencontainers.image.revision"]
        assert re.fullmatch("[0-9a-f]{40}", revision), revision
    async with crowd_at(stack, "scaled", FULL) as crowd:
        await counted(stack, 2, crowd)
        began = time.monotonic()
        await scaled(stack, 4)
        await even(stack, 4, crowd, began)
        # Those that are on their way arrive.
        await counted(stack, 4, crowd)
        assert crowd.moves(began)[1] >= (1 - SKEW) * len(crowd.clients) / 2
        assert max(crowd.moves(began)) == 1
        assert set(crowd.codes(began)) == {FORCE_RECONNECT.code}
        print(f"balanced: {crowd.summary(began)}")
        moment = time.monotonic()
        await scaled(stack, 2)
        await counted(stack, 2, crowd)
        await assert_nothing_lost(crowd, 60)
        # Two of the four had half of the clients. What was not quite even before may become so until they are gone.
        assert crowd.codes(moment)[SHUTDOWN.code] >= (1 - SKEW) * len(crowd.clients) / 2
        assert set(crowd.codes(moment)) <= {SHUTDOWN.code, FORCE_RECONNECT.code}
        assert max(crowd.moves(began)) <= 2


async def scaled(stack: Stack, replicas: int) -> None:
    """Change the number of replicas."""
    moment = time.monotonic()
    await stack.up(replicas)
    print(f"{replicas} replicas after {time.monotonic() - moment:.0f} s")


async def connections(stack: Stack) -> dict[str, int]:
    """What Prometheus has as the connections of each replica, by its instance."""
    found = await stack.query("app_active_connections")
    assert len({one["metric"]["instance"] for one in found}) == len(found)
    return {one["metric"]["instance"]: int(one["value"][1]) for one in found}


async def counted(stack: Stack, replicas: int, crowd: Crowd) -> None:
    """Wait until Prometheus has these replicas and no others, and every client once."""
    found: dict[str, int] = {}

    async def is_exact() -> bool:
        nonlocal found
        found, everybody = await connections(stack), len(crowd.clients)
        return len(found) == replicas and sum(found.values()) == everybody and not crowd.outside()

    what = f"Prometheus counts {len(crowd.clients)} clients on {replicas} replicas"
    await until_async(is_exact, 60, what)
    print(f"{what}: {sorted(found.values())}")


async def even(stack: Stack, replicas: int, crowd: Crowd, began: float) -> None:
    """Wait until the replicas have balanced themselves: each is near the mean of all clients."""
    mean = len(crowd.clients) / replicas

    async def is_even() -> bool:
        found = (await connections(stack)).values()
        return len(found) == replicas and all(abs(one - mean) <= SKEW * mean for one in found)

    await until_async(is_even, EVEN_WITHIN, f"{replicas} replicas are within {SKEW:.0%} of even")
    print(f"within {SKEW:.0%} of even after {time.monotonic() - began:.0f} s")


async def test_a_killed_replica_and_a_restarted_store_lose_nothing(stack: Stack):
    await stack.ready(2)
    async with crowd_at(stack, "killed") as crowd:
        [victim, _] = await stack.containers("app")
        await stack.kill(victim["Id"])
        await crowd.traffic(60)
        await stack.compose("restart", "valkey")
        await crowd.traffic(60)
        await assert_nothing_lost(crowd, 60)


async def test_a_roll_to_an_image_that_is_never_healthy_is_taken_back(stack: Stack):
    await stack.ready(2)
    before = {one["Id"] for one in await stack.containers("app")}
    image = await asyncio.to_thread(
        derived_image, "ws-cluster:test-broken", 'ENTRYPOINT ["sleep", "1000"]', "CMD []"
    )
    async with crowd_at(stack, "kept") as crowd:
        done = await stack.roll(image, wait_seconds=10)
        assert done.returncode == 1
        assert "they are removed, and the old ones stay" in done.stderr
        # One that cannot even be started.
        image = await asyncio.to_thread(
            derived_image, "ws-cluster:test-nowhere", 'ENTRYPOINT ["/nowhere"]', "CMD []"
        )
        assert (await stack.roll(image, wait_seconds=10)).returncode == 1
        await assert_nothing_lost(crowd, 60)
        assert crowd.codes() == {}
    assert {one["Id"] for one in await stack.containers("app")} == before


async def test_no_secret_is_in_an_environment_or_a_list_of_processes(stack: Stack):
    await stack.ready(2)
    secrets = [path.read_text().strip() for path in (stack.folder / "secrets").iterdir()]
    for service in ("app", "valkey", "nginx"):
        for container in await stack.containers(service):
            shown = json.dumps(container["Config"]) + json.dumps(container["Args"])
            top = await asyncio.to_thread(docker, "top", container["Id"], "-o", "pid,args")
            assert not [one for one in secrets if len(one) > 20 and one in shown + top], service


async def test_a_replica_that_cannot_serve_is_unhealthy_or_ends_and_says_why(
    stack: Stack, tmp_path: Path
):
    await stack.ready(2)
    # It tries for sixteen seconds: meanwhile another one is started.
    with replica_without_a_store() as name:
        await a_wrong_password_is_said_last(stack, tmp_path)

        async def is_unhealthy() -> bool:
            [shown] = json.loads(await asyncio.to_thread(docker, "inspect", name))
            health = shown["State"]["Health"]
            said = [one["Output"] for one in health["Log"]]
            return health["Status"] == "unhealthy" and any(
                "no worker is ready: " in one for one in said
            )

        await until_async(is_unhealthy, 30, "the engine says why the replica is unhealthy")


async def a_wrong_password_is_said_last(stack: Stack, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong\n")
    wrong.chmod(0o644)
    name = "WS_CLUSTER_BROKER__REDIS_PASSWORD_FILE"
    with pytest.raises(CommandFailed, match="WRONGPASS") as caught:
        await stack.compose(
            *(
                "run",
                "--rm",
                "--no-deps",
                "-e",
                f"{name}=/run/wrong",
                "-v",
                f"{wrong}:/run/wrong:ro",
            ),
            *("app", "up"),
            within=90.0,
        )
    # Another attempt would end alike, so the reason is not delayed by any.
    assert "times in a row" not in str(caught.value)
    said = [line for line in str(caught.value).splitlines() if line.startswith("ws-cluster: ")]
    assert "WRONGPASS" in said[-1]


async def test_the_preflight_knows_the_stack_that_runs_and_says_what_another_would_lack(
    stack: Stack,
):
    await stack.ready(2)
    # Grafana is not in the stories, and open files are this machine's affair.
    env = {"OPEN_FILES": "64", "GRAFANA_PORT": str(free_ports(1))}
    done = await stack.script("preflight.sh", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    secret = stack.folder / "secrets" / "token_key"
    kept = secret.rename(stack.folder / "token_key")
    try:
        done = await stack.script(
            "preflight.sh", env={**env, "COMPOSE_PROJECT_NAME": "ws-cluster-test-another"}
        )
    finally:
        kept.rename(secret)
    assert done.returncode == 1
    missing, *taken = done.stderr.splitlines()
    assert "docker/secrets/token_key is missing" in missing
    assert [line.split(" which ")[0] for line in taken] == [
        f"preflight: port {port} is taken," for port in range(stack.port, stack.port + 4)
    ]
