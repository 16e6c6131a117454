"""docker/stack.yml on a swarm of one machine: deployed with a certificate, scaled and updated under load."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.compose.stack import STORY, CommandFailed, Stack, derived_image, docker
from tests.compose.test_stack import SIZE
from tests.compose.wss import connected, serial_number
from tests.docs.pages import all_blocks
from tests.harness.certificates import write_certificate
from tests.harness.crowd import Crowd
from tests.harness.processes import free_ports
from tests.harness.under_load import assert_nothing_lost
from tests.harness.waiting import until_async

pytestmark = [pytest.mark.full, pytest.mark.swarm, pytest.mark.timeout(600)]

#: Set by tests/compose/stand_in for its own engine, which may become a swarm.
MAY_BECOME_A_SWARM = "WS_CLUSTER_STAND_IN_ADDRESS"


#: Between two replicas of an update. Docker takes 0s for "not given" and leaves the 5 s of docker/stack.yml.
SHORT_DELAY = "1ms"


def documented(part: str) -> list[str]:
    """The commands of the one block of docs/how-to/swarm.md in which this stands."""
    [text] = [one.text for one in all_blocks() if one.page.name == "swarm.md" and part in one.text]
    return [line[2:] for line in text.splitlines() if line.startswith("$ ")]


class Swarm:
    """One stack; every command is awaited in a thread of its own."""

    def __init__(self, docker_folder: Path, folder: Path) -> None:
        self.port = free_ports(6)
        self.https_port = self.port + 1
        names = ("HTTP", "HTTPS", "GRAFANA", "PROMETHEUS", "ALERTMANAGER", "RECEIVER")
        self.ports = {name: self.port + number for number, name in enumerate(names)}
        self.name = f"ws-cluster-swarm-{os.getpid()}"
        self.docker_folder = docker_folder
        more = folder / "story.yml"
        story = yaml.safe_load(STORY.read_text(encoding="utf-8"))["services"]["app"]
        story["deploy"] = {"update_config": {"monitor": "2s", "delay": SHORT_DELAY}}
        nginx = {
            "deploy": {"update_config": {"monitor": "2s"}},
            "healthcheck": {"interval": "1s"},
        }
        services = {"app": story, "nginx": nginx}
        more.write_text(yaml.safe_dump({"version": "3.9", "services": services}))
        self._flags = f"--resolve-image never --compose-file {more}"
        ports = {f"{name}_PORT": str(port) for name, port in self.ports.items()}
        self.env = {**os.environ, "STACK_NAME": self.name, "HSTS": "365d", **ports}

    async def deploy(self, **variables: str) -> str:
        """Run docker/deploy-stack.sh, which waits until all runs; returns what it printed."""
        return await self._run(["docker/deploy-stack.sh --with-registry-auth"], variables)

    async def certify(self) -> int:
        """Give nginx a new certificate, as docs/how-to/swarm.md does; returns its serial number."""
        serial = write_certificate(self.certificate, self.certificate.with_name("privkey.pem"))
        assert f"all services of {self.name} run" in await self._run(
            documented("renew-certificate.sh fullchain.pem"), {}
        )
        return serial

    @property
    def certificate(self) -> Path:
        return self.docker_folder.with_name("fullchain.pem")

    async def _run(self, commands: list[str], variables: dict[str, str]) -> str:
        """Run commands beside docker/; the stand-in images are in no registry."""
        script = "\n".join(commands).replace("--with-registry-auth", self._flags)
        done = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-euc", script],
            cwd=self.docker_folder.parent,
            env={**self.env, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )
        if done.returncode:
            raise CommandFailed(done.stdout + done.stderr)
        return str(done.stdout)

    async def scale(self, replicas: int) -> None:
        """Change the number of replicas; returns when they run."""
        service = f"{self.name}_app={replicas}"
        await asyncio.to_thread(docker, "service", "scale", "--detach", service)

        async def are_there() -> bool:
            states = [one["State"] for one in await self.containers("app")]
            healthy = [one["Health"]["Status"] == "healthy" for one in states]
            return len(healthy) == replicas and all(healthy)

        await until_async(are_there, 180, f"{replicas} replicas are healthy")

    async def containers(self, service: str) -> list[dict[str, Any]]:
        """The running containers of a service, as `docker inspect` shows them."""
        label = f"label=com.docker.swarm.service.name={self.name}_{service}"
        ids = (await asyncio.to_thread(docker, "ps", "--quiet", "--filter", label)).split()
        shown = await asyncio.to_thread(docker, "inspect", *ids, fails=True)
        found: list[dict[str, Any]] = json.loads(shown or "[]")
        return found

    async def targets(self) -> dict[str, int]:
        """How many targets of each job Prometheus finds up."""
        [prometheus] = await self.containers("prometheus")
        url = "http://127.0.0.1:9090/api/v1/targets?state=active"
        said = await asyncio.to_thread(
            docker, "exec", prometheus["Id"], "wget", "-q", "-O", "-", url
        )
        jobs = [
            one["labels"]["job"]
            for one in json.loads(said)["data"]["activeTargets"]
            if one["health"] == "up"
        ]
        return {job: jobs.count(job) for job in jobs}

    async def remove(self) -> None:
        """End everything, with its volumes, configs and secrets."""
        await asyncio.to_thread(docker, "stack", "rm", self.name)

        async def is_gone() -> bool:
            label = f"label=com.docker.stack.namespace={self.name}"
            listed = (["ps", "--all"], ["volume", "ls"], ["network", "ls"], ["config", "ls"], ["secret", "ls"])  # fmt: skip
            left = [
                await asyncio.to_thread(docker, *words, "--quiet", "--filter", label)
                for words in listed
            ]
            for volume in left[1].split():
                await asyncio.to_thread(docker, "volume", "rm", volume, fails=True)
            return not "".join(left).strip()

        await until_async(is_gone, 120, "nothing of the stack is left")


@pytest.fixture(scope="module")
def swarm(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """A deployed stack of two replicas, on an engine that leaves the swarm in the end."""
    address = os.environ.get(MAY_BECOME_A_SWARM)
    is_one = docker("info", "--format", "{{.Swarm.ControlAvailable}}").strip() == "true"
    if not address:
        pytest.skip(
            "the engine is not the tests' own: it is not made a swarm, or a place of its data"
        )
    # Where all tests of this folder run: Compose's networks have their addresses and names from the same engine.
    asyncio.run(stack.down())
    if not is_one:
        docker("swarm", "init", "--advertise-addr", address)
    swarm = Swarm(stack.folder, tmp_path_factory.mktemp("swarm"))
    try:
        node = docker("info", "--format", "{{.Swarm.NodeID}}").strip()
        docker("node", "update", "--label-add", "ws-cluster.data=true", node)
        began = time.monotonic()
        asyncio.run(swarm.certify())
        print(f"a stack of Swarm runs after {time.monotonic() - began:.0f} s")
        yield swarm
        asyncio.run(swarm.remove())
    finally:
        docker("swarm", "leave", "--force")


@asynccontextmanager
async def crowd_at(swarm: Swarm) -> AsyncIterator[Crowd]:
    """Clients at the public port, which check what they receive; an error says what they saw."""
    crowd = Crowd(swarm.port, SIZE)
    try:
        await crowd.gather()
        crowd.begin_publishing()
        await crowd.traffic()
        yield crowd
    except BaseException as error:
        error.add_note(crowd.summary())
        raise
    finally:
        await crowd.close()


async def test_clients_connect_over_tls_and_a_renewal_updates_nginx_alone(swarm: Swarm):
    before = await serial_number(swarm.https_port)
    replicas = {one["Id"] for one in await swarm.containers("app")}
    async with connected(swarm.https_port, swarm.certificate):
        began = time.monotonic()
        renewed = await swarm.certify()
        print(f"a certificate is renewed after {time.monotonic() - began:.0f} s")
    assert before != renewed == await serial_number(swarm.https_port)
    async with connected(swarm.https_port, swarm.certificate):
        pass
    url = f"https://127.0.0.1:{swarm.https_port}/health"
    async with aiohttp.ClientSession() as session, session.get(url, ssl=False) as answer:
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert {one["Id"] for one in await swarm.containers("app")} == replicas


@asynccontextmanager
async def operators_pages(swarm: Swarm) -> AsyncIterator[None]:
    """What docs/how-to/swarm.md runs for them, until the end."""
    [command] = documented("operator-pages.sh")
    process = await asyncio.create_subprocess_exec(
        str(swarm.docker_folder.parent / command), env=swarm.env
    )
    try:
        yield
        assert process.returncode is None
    finally:
        process.terminate()
        await process.wait()


async def test_the_operators_have_their_pages_on_loopback_and_grafana_its_dashboards(swarm: Swarm):
    given = swarm.docker_folder / "grafana"

    async def content(name: str, path: str) -> str:
        try:
            async with aiohttp.ClientSession() as session:
                url = f"http://127.0.0.1:{swarm.ports[name]}{path}"
                async with session.get(url) as answer:
                    return await answer.text() if answer.ok else ""
        except aiohttp.ClientConnectionError:
            return ""

    async with operators_pages(swarm):
        for name, path in {
            "GRAFANA": "/api/health",
            "PROMETHEUS": "/-/ready",
            "ALERTMANAGER": "/-/ready",
            "RECEIVER": "/health",
        }.items():

            async def is_there(name: str = name, path: str = path) -> bool:
                return bool(await content(name, path))

            await until_async(is_there, 30, f"{name}_PORT has a page")
        for file in given.rglob("*.*"):
            # The stand-in serves its configuration.
            path = f"/etc/{file.relative_to(given)}"
            assert await content("GRAFANA", path) == file.read_text(encoding="utf-8"), path


async def test_a_swarm_is_scaled_and_updated_and_loses_nothing(swarm: Swarm):
    image = await asyncio.to_thread(derived_image, "ws-cluster:test-swarm", "LABEL next=yes")
    async with crowd_at(swarm) as crowd:
        await swarm.scale(3)
        await are_scraped(swarm, 3)
        await swarm.scale(2)
        await crowd.traffic(60)
        began = time.monotonic()
        await swarm.deploy(WS_CLUSTER_IMAGE=image)
        print(f"updated after {time.monotonic() - began:.0f} s")
        await crowd.traffic(60)
        await assert_nothing_lost(crowd, 60)
        # Drains, and, on a machine that is slow, balance after its half minute.
        assert set(crowd.codes()) <= {3001, 3011}
        assert max(crowd.moves(0.0)) <= 4
        await are_scraped(swarm, 2)
    labels = [one["Config"]["Labels"].get("next") for one in await swarm.containers("app")]
    assert labels == ["yes", "yes"]


async def test_a_swarm_takes_an_update_back_whose_image_is_never_ready(swarm: Swarm):
    before = await swarm.containers("app")
    assert len(before) == 2
    image = await asyncio.to_thread(
        derived_image,
        "ws-cluster:test-swarm-broken",
        'ENTRYPOINT ["sleep", "1000"]',
        "CMD []",
        # The first process of a container ignores SIGTERM: Swarm would wait for the 45 s of stop_grace_period.
        "STOPSIGNAL SIGKILL",
        # That of the image allows a minute.
        "HEALTHCHECK --interval=2s --timeout=3s --start-period=4s --retries=2"
        ' CMD ["ws-cluster-healthcheck"]',
    )
    async with crowd_at(swarm) as crowd:
        began = time.monotonic()
        with pytest.raises(CommandFailed, match=r"update has failed: .*_app \(rollback_completed"):
            await swarm.deploy(WS_CLUSTER_IMAGE=image)
        print(f"taken back after {time.monotonic() - began:.0f} s")
        await assert_nothing_lost(crowd, 60)
        assert set(crowd.codes()) <= {3011}
    after = await swarm.containers("app")
    assert {one["Id"] for one in after} == {one["Id"] for one in before}
    # They have the same image, and one at a time of each.
    for service in ("tracker", "dead-mans-switch"):
        [container] = await swarm.containers(service)
        assert container["Image"] == before[0]["Image"], service


async def are_scraped(swarm: Swarm, replicas: int) -> None:
    async def are_up() -> bool:
        up = await swarm.targets()
        return up.get("websocket-app") == replicas and up.get("node") == 1

    await until_async(are_up, 90, f"Prometheus scrapes {replicas} replicas and the machine")
