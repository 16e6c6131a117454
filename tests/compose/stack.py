"""The stack of docker/compose.yml on a Docker engine, under a project name of its own.

`docker` must reach an engine (DOCKER_HOST says which) that has the images, or can pull and build them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.harness.cluster import REPOSITORY
from tests.harness.processes import free_ports

COMPOSE = REPOSITORY / "docker" / "compose.yml"
STORY = Path(__file__).with_name("story.yml")
UP_WITHIN = 180.0


def copied(folder: Path) -> Path:
    """Copy docker/ into a folder, without the operator's keys, certificate and variables; returns the copy.

    The stories write keys and certificates, and must neither use nor replace those of a checkout.
    """
    without = shutil.ignore_patterns("secrets", "generated", ".env")
    return Path(shutil.copytree(COMPOSE.parent, folder / "docker", ignore=without))


class CommandFailed(Exception):
    """A command of docker has failed; the text is what it wrote."""


def docker(
    *arguments: str,
    within: float = 60.0,
    env: Mapping[str, str] | None = None,
    fails: bool = False,
) -> str:
    """Run one command of docker; returns what it printed.

    Raises:
        CommandFailed: it has ended with another status than 0, and `fails` does not allow that.
    """
    done = subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
        env={**os.environ, **(env or {})},
    )
    if done.returncode and not fails:
        raise CommandFailed(f"docker {' '.join(arguments)}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def derived_image(name: str, *lines: str) -> str:
    """Build an image on that of the cluster; returns its name."""
    text = "\n".join(["FROM ws-cluster:local", *lines])
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", name, "-"],
        input=text.encode(),
        check=True,
        capture_output=True,
        timeout=60,
    )
    return name


@contextmanager
def replica_without_a_store() -> Iterator[str]:
    """A replica alone, whose store refuses it; its health is asked every second. Yields its name."""
    name = f"ws-cluster-test-alone-{os.getpid()}"
    options = {
        "BROKER__REDIS_URLS": '["redis://127.0.0.1:1/0"]',
        "CLIENT__INSECURE": "true",
        "SERVER__WORKERS": "1",
    }
    docker(
        *("run", "--detach", "--name", name, "--network", "none"),
        # Zero means that of the image, which allows a minute.
        *("--health-interval", "1s", "--health-retries", "2", "--health-start-period", "1ms"),
        *(word for key, text in options.items() for word in ("--env", f"WS_CLUSTER_{key}={text}")),
        "ws-cluster:local",
    )
    try:
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


def load_namespace() -> str:
    """The namespace that docs/how-to/compose.md gives the load."""
    text = (REPOSITORY / "docs" / "how-to" / "compose.md").read_text(encoding="utf-8")
    [found] = re.findall(r"^CHANNEL_NAMESPACES='(.*)'$", text, re.MULTILINE)
    return str(found)


def missing() -> str:
    """Why there can be no stack here, "" if there can."""
    try:
        docker("info", "--format", "{{.ServerVersion}}", within=20)
        docker("compose", "version", within=20)
    except (OSError, CommandFailed, subprocess.TimeoutExpired) as error:
        return str(error).strip().splitlines()[-1]
    return ""


def _is_well(container: dict[str, Any]) -> bool:
    """Whether a container, as `docker compose ps` shows it, is healthy, or has done what it was to do."""
    if container["State"] == "running":
        return container["Health"] in {"", "healthy"}
    return (
        container["State"] == "exited"
        and container["ExitCode"] == 0
        and container["Service"] != "app"
    )


def _run(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, timeout=400
    )


class Stack:
    """One project of Compose; every command is awaited in a thread of its own.

    Args:
        folder: a copy of docker/, with keys.
        drill_target: its drill.toml, for the time that passes faster.
        name: in the name of its project.
    """

    def __init__(self, folder: Path, drill_target: Path, name: str) -> None:
        self.folder = folder
        self._services: set[str] = set()
        self._files = [folder / COMPOSE.name, STORY]
        self.port = free_ports(6)
        self.prometheus_port = self.port + 1
        self.https_port = self.port + 4
        self.locust_port = self.port + 5
        self._project = f"ws-cluster-{name}-{os.getpid()}"
        self._env = {
            "HTTP_PORT": str(self.port),
            "PROMETHEUS_PORT": str(self.port + 1),
            "ALERTMANAGER_PORT": str(self.port + 2),
            "RECEIVER_PORT": str(self.port + 3),
            "HTTPS_PORT": str(self.https_port),
            "LOCUST_PORT": str(self.locust_port),
            "LOAD_EXPECT": "lost=0,twice=0,out_of_order=0,errors=0,acknowledged=20,got=100",
            "CHANNEL_NAMESPACES": load_namespace(),
            "DRILL_TARGET": str(drill_target),
            "DOCKER_SOCKET": os.environ.get("DOCKER_HOST", "").removeprefix("unix://"),
        }

    async def compose(self, *arguments: str, within: float = 60.0, fails: bool = False) -> str:
        """Run one command of `docker compose`; returns what it printed.

        Raises:
            CommandFailed: it has ended with another status than 0, and `fails` does not allow that.
        """
        files = [word for path in self._files for word in ("-f", str(path))]
        return await asyncio.to_thread(
            docker,
            *("compose", "-p", self._project, *files, *arguments),
            within=within,
            env=self._env,
            fails=fails,
        )

    async def up(self, replicas: int) -> None:
        """Start the stack, or change the number of replicas, and wait until all is healthy."""
        is_new, began = not await self._listed(), time.monotonic()
        await self.compose(
            *("up", "--detach", "--wait", "--scale", f"app={replicas}"), within=UP_WITHIN
        )
        if is_new:
            print(f"a new stack is healthy after {time.monotonic() - began:.0f} s")
        self._services = {one["Service"] for one in await self._listed()}

    async def ready(self, replicas: int) -> None:
        """The stack as a story finds it; what the one before has left otherwise is brought back."""
        own = [one for one in await self._listed() if one["Service"] in self._services]
        replicas_there = [one["Service"] for one in own].count("app")
        all_there = bool(own) and {one["Service"] for one in own} == self._services
        if not all_there or replicas_there != replicas or not all(map(_is_well, own)):
            await self.up(replicas)

    async def _listed(self) -> list[dict[str, Any]]:
        said = await self.compose("ps", "--all", "--format", "json")
        return [json.loads(line) for line in said.splitlines()]

    async def roll(self, image: str, wait_seconds: int = 180) -> subprocess.CompletedProcess[str]:
        """Run docker/roll.sh to an image, which later commands use too if it has worked."""
        env = {
            "WS_CLUSTER_IMAGE": image,
            "WAIT_SECONDS": str(wait_seconds),
        }
        done = await self.script("roll.sh", env=env)
        if done.returncode == 0:
            self._env["WS_CLUSTER_IMAGE"] = image
        return done

    async def script(
        self, name: str, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a script of docker/ for this project."""
        own = {
            "COMPOSE_FILE": ":".join(map(str, self._files)),
            "COMPOSE_PROJECT_NAME": self._project,
        }
        command = [str(self.folder / name), *arguments]
        return await asyncio.to_thread(
            _run, command, {**os.environ, **self._env, **own, **(env or {})}
        )

    @asynccontextmanager
    async def also(self, *files: Path) -> AsyncIterator[None]:
        """With more files of Compose, until the end; the next `up` is without them."""
        self._files += files
        try:
            yield
        finally:
            for one in files:
                self._files.remove(one)
            self._services = set()

    def keep(self, file: Path) -> None:
        """With one more file of Compose from now on; what runs has it after the next `up` or roll."""
        if file not in self._files:
            self._files.append(file)

    async def down(self) -> None:
        """End everything, volumes included."""
        await self.compose("--profile", "*", "down", "--volumes", "--timeout", "10", within=120.0)

    async def containers(self, service: str) -> list[dict[str, Any]]:
        """The containers of a service, as `docker inspect` shows them."""
        ids = (await self.compose("ps", "--all", "--quiet", service)).split()
        if not ids:
            return []
        shown: list[dict[str, Any]] = json.loads(await asyncio.to_thread(docker, "inspect", *ids))
        return shown

    async def prometheus(self, path: str) -> str:
        """What its Prometheus answers."""
        url = f"http://127.0.0.1:{self.prometheus_port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            answer.raise_for_status()
            return await answer.text()

    async def query(self, expr: str) -> list[dict[str, Any]]:
        """The result of an instant query."""
        words = urllib.parse.urlencode({"query": expr})
        body = json.loads(await self.prometheus(f"/api/v1/query?{words}"))
        result: list[dict[str, Any]] = body["data"]["result"]
        return result

    async def targets(self) -> list[dict[str, Any]]:
        """What Prometheus scrapes."""
        body = json.loads(await self.prometheus("/api/v1/targets?state=active"))
        active: list[dict[str, Any]] = body["data"]["activeTargets"]
        return active

    async def memory(self) -> str:
        """The memory of each container, one a line, by its name."""
        ids = (await self.compose("ps", "--quiet")).split()
        form = "{{.Name}} {{.MemUsage}}"
        shown = await asyncio.to_thread(docker, "stats", "--no-stream", "--format", form, *ids)
        return shown.replace(f"{self._project}-", "")

    async def kill(self, container: str) -> None:
        """End a container without a warning."""
        await asyncio.to_thread(docker, "kill", container)

    async def logs(self, service: str) -> str:
        return await self.compose("logs", "--no-color", "--tail", "200", service)
