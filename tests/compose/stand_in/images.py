"""The images of docker/compose.yml where none can be pulled: made of Debian's packages, under the same names.

The root file systems are kept as files and the images in the engine's data root, so a second run
takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from tests.compose.stack import COMPOSE
from tests.compose.stand_in import machine
from tests.compose.stand_in.machine import Unavailable
from tests.harness.cluster import REPOSITORY

_DOCKERFILE: Final = Path(__file__).with_name("Dockerfile")
_DEFAULT: Final = re.compile(r"\$\{[A-Z_]+:-([^}]*)\}")
_BUILD_WITHIN: Final = 1200.0


@dataclass(frozen=True, slots=True)
class RootFileSystem:
    """Packages of Debian, with what they need, as one image."""

    name: str
    suite: str
    packages: tuple[str, ...]

    @property
    def image(self) -> str:
        """A name that changes with the packages."""
        text = " ".join((self.suite, *self.packages))
        return f"ws-cluster-stand-in/{self.name}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


PYTHON: Final = RootFileSystem(
    "python", "trixie", ("python3", "python3-venv", "python3-pip", "ca-certificates")
)
# Of sid: nginx follows names with `resolve` from 1.27.3 on, and the monitoring has the versions of the public images.
SERVICES: Final = RootFileSystem(
    "services",
    "sid",
    (
        "busybox-static",
        "ca-certificates",
        "curl",
        "nginx",
        "prometheus",
        "prometheus-alertmanager",
        "prometheus-nginx-exporter",
        "prometheus-node-exporter",
        "prometheus-redis-exporter",
        "valkey-server",
        "valkey-tools",
    ),
)
#: The services of docker/compose.yml whose image a part of the Dockerfile has the name of.
PARTS: Final = (
    "nginx",
    "valkey",
    "prometheus",
    "alertmanager",
    "node-exporter",
    "nginx-exporter",
    "redis-exporter",
    "grafana",
)


def default_of(text: str) -> str:
    """What `${NAME:-default}` is without the variable."""
    return _DEFAULT.sub(r"\1", text)


def stand_ins() -> dict[str, str]:
    """Part of the Dockerfile, and the image it is built as."""
    document = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    names = {part: default_of(document["services"][part]["image"]) for part in PARTS}
    return {
        "python": default_of(document["services"]["app"]["build"]["args"]["PYTHON_IMAGE"]),
        **names,
    }


def application() -> str:
    """The image of the cluster, which is built from the repository."""
    document = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return default_of(document["services"]["app"]["image"])


def make(files: Path, env: dict[str, str]) -> float:
    """Make every image on an engine that has the network of this machine.

    Args:
        files: folder in which the root file systems are kept.
        env: the environment of `docker`, which names the engine.

    Returns:
        The seconds that the image of the cluster took, as `build_application`.

    Raises:
        Unavailable: a command has failed; the text has its last lines.
    """
    with tempfile.TemporaryDirectory(prefix="ws-images-") as name:
        context = Path(name)
        (context / "ca-certificates.crt").write_bytes(machine.certificates(os.environ))
        (context / "pip.conf").write_text(machine.pip_settings())

        def application() -> float:
            _make_root(PYTHON, files, env)
            _build_stand_ins(context, "python", ["python"], env)
            return build_application({**env, "BUILD_NETWORK": "host"})

        def services() -> None:
            _make_root(SERVICES, files, env)
            _build_stand_ins(context, "services", PARTS, env)

        with ThreadPoolExecutor() as together:
            # Each waits for mirrors and disks most of the time.
            built, made = together.submit(application), together.submit(services)
            made.result()
            return built.result()


def build_application(env: dict[str, str]) -> float:
    """Build the image of the cluster from this checkout.

    Args:
        env: the environment of `docker`, which names the engine.

    Returns:
        The seconds that it took; on an engine that has built it before, most layers are there.

    Raises:
        Unavailable: the build has failed; the text has its last lines.
    """
    proxies = [f"--build-arg={name}" for name in machine.proxy_names(env)]
    revision = _output(["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"])
    command = ["docker", "compose", "-f", str(COMPOSE), "build", "--quiet", *proxies, "app"]
    began = time.monotonic()
    _run(command, {**env, "REVISION": revision or "unknown"})
    return time.monotonic() - began


def _make_root(root: RootFileSystem, files: Path, env: dict[str, str]) -> None:
    if _output(["docker", "image", "inspect", "--format", "{{.Id}}", root.image], env):
        return
    archive = files / f"{root.image.replace('/', '-').replace(':', '-')}.tar"
    if not archive.exists():
        unfinished = archive.with_suffix(".unfinished.tar")
        mirror = machine.debian_mirror()
        # A mirror may be a copy of another day.
        options = ["--variant=minbase", '--aptopt=Acquire::Check-Valid-Until "false"']
        options.append(f"--include={','.join(root.packages)}")
        _run(
            ["mmdebstrap", *options, root.suite, str(unfinished), *([mirror] if mirror else [])],
            env,
        )
        unfinished.replace(archive)
    _run(["docker", "import", str(archive), root.image], env)


def _build_stand_ins(context: Path, name: str, parts: Sequence[str], env: dict[str, str]) -> None:
    """Build parts of the Dockerfile as a project of Compose, which builds without Docker's plugin for that."""
    roots = {"PYTHON_ROOT": PYTHON.image, "SERVICES_ROOT": SERVICES.image}
    services = {}
    for part in parts:
        build = {
            "context": str(context),
            "dockerfile": str(_DOCKERFILE),
            "target": part,
            "network": "host",
            "args": roots,
        }
        services[part] = {"image": stand_ins()[part], "build": build}
    project = context / f"{name}.json"
    project.write_text(json.dumps({"name": f"ws-cluster-stand-ins-{name}", "services": services}))
    _run(["docker", "compose", "-f", str(project), "build", "--quiet"], env)


def _output(command: list[str], env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout.strip() if done.returncode == 0 else ""


def _run(command: Iterable[str], env: dict[str, str]) -> None:
    words = list(command)
    done = subprocess.run(
        words, env=env, capture_output=True, text=True, check=False, timeout=_BUILD_WITHIN
    )
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()[-20:]
        raise Unavailable("\n".join([f"{words[0]} has failed:", *lines]))
