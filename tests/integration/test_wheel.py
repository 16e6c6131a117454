"""A wheel that is installed in an empty folder runs what `make run` runs, without a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, files
from tests.harness.processes import free_ports
from tests.harness.waiting import until

WITHIN_SECONDS = 60
#: Where a wheel has what stands at the top of a checkout.
MOVED = {
    "docker": "cluster/docker",
    "docs/runbooks": "cluster/docs/runbooks",
    "nginx": "cluster/nginx",
}
WHOLE = ("cluster", "loadtest")


def name_in_wheel(path: Path) -> str:
    """The name that a file of the checkout has in a wheel; empty if it is none of its files."""
    name = path.relative_to(ROOT).as_posix()
    if name.split("/")[0] in WHOLE:
        return name
    moved = [(old, new) for old, new in MOVED.items() if name.startswith(f"{old}/")]
    return name.replace(*moved[0], 1) if moved else ""


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


def test_the_wheel_has_every_file_that_a_checkout_reads(installed: Path):
    """Modules, Lua, the console's page, alert rules, templates, runbooks, drills."""
    [wheel] = installed.parent.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = {name for path in files() if (name := name_in_wheel(path))}
    for ending in (".lua", "console/static/index.html", "alert_rules.yml", "notifications.tmpl",
                   "nginx/nginx.conf", "runbooks/HighErrorRate.md", "drills/high_error_rate.py"):  # fmt: skip
        assert any(name.endswith(ending) for name in wanted), ending
    assert sorted(wanted - packed) == []


def test_a_wheel_in_an_empty_folder_imports_a_configuration_of_centrifugo(
    installed: Path, tmp_path: Path
):
    (tmp_path / "centrifugo.yaml").write_text(
        f"client:\n  token:\n    hmac_secret_key: {'k' * 32}\n"
    )
    program = (installed / "bin" / "python", "-I", "-m", "cluster")
    said = run(*program, "import-config", "centrifugo.yaml", "-o", "ours.toml", cwd=tmp_path)
    assert "start with: ws-cluster up --config ours.toml" in said
    assert "ours.toml is fine" in run(*program, "check-config", "ours.toml", cwd=tmp_path)


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
        # The first lines say what to open, and what to do next.
        _, _, summary = said.partition("is ready\n")
        public, admin = (line.split() for line in summary.splitlines()[:2])
        assert public == ["public", f"ws://127.0.0.1:{ports}/connection/websocket"]
        assert admin[0] == "admin"
        assert admin[1].startswith(f"http://127.0.0.1:{ports + 1}/#key=")
        [following] = [line for line in summary.splitlines() if line.startswith("  next ")]
        assert "open the admin address in a browser" in following
        assert "connect an SDK to the public one; Ctrl-C drains and stops" in following
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
