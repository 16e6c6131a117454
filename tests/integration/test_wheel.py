"""A wheel that is installed in an empty folder runs what `make run` runs, without a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT
from tests.harness.processes import free_ports
from tests.harness.waiting import until

WITHIN_SECONDS = 60


def run(*command: str | Path, cwd: Path, within: float = WITHIN_SECONDS) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False, timeout=within,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the wheel, and our dependencies from this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    [wheel] = folder.glob("*.whl")
    environment = folder / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    [packages] = environment.glob("lib/python*/site-packages")
    run(
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
        "--target", packages, wheel, cwd=folder,
    )  # fmt: skip
    # Behind the wheel's own packages; without our .pth files, which would name the checkout.
    own = next(path for path in map(Path, sys.path) if (path / "aiohttp").is_dir())
    (packages / "dependencies.pth").write_text(f"{own}\n")
    return environment


async def test_a_wheel_in_an_empty_folder_starts_a_development_cluster(
    installed: Path, tmp_path: Path
):
    program = (installed / "bin" / "python", "-I", "-m", "cluster")
    where = run(*program[:2], "-c", "import cluster; print(cluster.__file__)", cwd=tmp_path)
    assert where.startswith(str(installed))
    ports = free_ports(4)
    log = tmp_path / "out"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*map(str, program), "up", "--development", "--workers", "2", "--port", str(ports),
             "--admin-port", str(ports + 1), "--worker-port-base", str(ports + 2),
             "--data-dir", str(tmp_path / "data")],
            cwd=tmp_path, stdout=out, stderr=out,
            env={**os.environ, "WS_CLUSTER_LOG__FORMAT": "console"},
        )  # fmt: skip
    try:
        await until(
            lambda: process.poll() is not None or "is ready" in log.read_text(),
            WITHIN_SECONDS, "the cluster is ready",
        )  # fmt: skip
        said = log.read_text()
        assert process.poll() is None, said
        assert f"ws://127.0.0.1:{ports}/connection/websocket" in said
        assert "open the admin address in a browser" in said
    finally:
        process.terminate()
        assert process.wait(WITHIN_SECONDS) == 0


def test_a_wheel_in_an_empty_folder_lists_its_drills(installed: Path, tmp_path: Path):
    listed = run(
        installed / "bin" / "python", "-I", "-m", "cluster", "drill", "--list", cwd=tmp_path
    )
    assert "HighErrorRate" in listed


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_wheel_in_an_empty_folder_drills_an_alert(installed: Path, tmp_path: Path):
    python = installed / "bin" / "python"
    one = ("drill", "HighErrorRate", "--stages", "1", "--together", "1")
    said = run(python, "-I", "-m", "cluster", *one, cwd=tmp_path, within=240)
    assert "1 of 1" in said
    assert (tmp_path / "drill-report" / "drill.json").is_file()
