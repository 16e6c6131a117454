"""The README's first command: `make run` starts a cluster, Ctrl-C ends it and leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT
from tests.harness.needs import needs
from tests.harness.processes import end, family, free_ports, is_running
from tests.harness.waiting import until


def log_of(folder: Path) -> str:
    return (folder / "log").read_text()


def test_ci_runs_the_checks_and_then_the_readmes_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    # Comments aside; a command may stand behind `nice` or `timeout`.
    targets = re.findall(r"^(?!\s*#).*\bmake ([a-z-]+)", script, re.MULTILINE)
    assert targets == [
        "install", "compose-images", "check", "test", "test-swarm", "drill-short", "test-compose",
    ]  # fmt: skip
    assert "$ make test" in (ROOT / "README.md").read_text()


def test_make_help_lists_the_commands_of_the_readme():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("run", "test", "check", "bench", "help"):
        assert f"  make {target} " in done.stdout


def test_the_checks_of_ci_try_other_versions_of_python():
    planned = subprocess.run(
        ["make", "--dry-run", "check"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "scripts/check-versions.sh --fast\n" in planned.stdout


FAKE = """#!/bin/sh
echo "$0 $*" >>{folder}/said
case "$*" in
    "-c "*) exit 0 ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m {failing}"*) exit 1 ;;
esac
"""


def checked(
    folder: Path, *arguments: str, failing: str = "none", ci: str = ""
) -> tuple[int, str, str]:
    """Run it with an interpreter that only writes down what it is asked; its status, output, and that."""
    programs = folder / "bin"
    programs.mkdir()
    fake = programs / "python3.98"
    fake.write_text(FAKE.format(folder=folder, failing=failing))
    fake.chmod(0o755)
    where = {"PATH": f"{programs}:{os.environ['PATH']}", "ENVIRONMENTS": str(folder), "CI": ci}
    done = subprocess.run(
        ["scripts/check-versions.sh", *arguments],
        cwd=ROOT,
        env={**os.environ, **where},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = folder / "said"
    return done.returncode, done.stdout + done.stderr, said.read_text() if said.exists() else ""


def test_a_version_of_python_that_is_not_there_is_named_and_the_checks_go_on(tmp_path: Path):
    status, output, said = checked(tmp_path, "--fast", "3.99", "3.98")
    assert status == 0, output
    assert "Python 3.99 is not installed" in output
    assert "test_a_client_is_served_through_nginx_and_ctrl_c_leaves_nothing" in said


def test_in_ci_every_version_of_python_is_there(tmp_path: Path):
    status, output, said = checked(tmp_path, "--fast", "3.99", "3.98", ci="true")
    assert status == 1, output
    assert "failed: 3.99" in output
    assert "test_a_client_is_served_through_nginx_and_ctrl_c_leaves_nothing" in said


def test_the_whole_matrix_needs_every_version(tmp_path: Path):
    status, output, _ = checked(tmp_path, "3.99")
    assert (status, "failed: 3.99" in output) == (1, True)


@pytest.mark.parametrize("failing", ["pytest", "pip"])
def test_what_fails_under_one_version_fails_the_checks(tmp_path: Path, failing: str):
    status, output, _ = checked(tmp_path, "--fast", "3.98", failing=failing)
    assert status == 1, output
    assert "failed: 3.98" in output
    assert failing == "pytest" or not (tmp_path / ".venv-3.98" / ".fast").exists()


@needs(Path(sys.prefix, ".stamps", "package").exists(), "this environment was not made by make")
async def test_make_run_serves_until_ctrl_c_and_leaves_no_process(tmp_path: Path):
    port = free_ports(5)
    arguments = f"--workers 2 --port {port} --admin-port {port + 1} --worker-port-base {port + 2}"
    with (tmp_path / "log").open("wb") as log:
        make = subprocess.Popen(
            ["make", "run", f"VENV={sys.prefix}", f"ARGS={arguments} --data-dir {tmp_path}/data"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
        )
    seen: list[int] = []
    try:
        await until(lambda: "cluster_started" in log_of(tmp_path), 60, "the cluster has started")
        seen = family(make.pid)
        # What a terminal does on Ctrl-C: the signal goes to the whole foreground group.
        os.killpg(make.pid, signal.SIGINT)
        make.wait(30)
        await until(lambda: not any(map(is_running, seen)), 5, "every process ended")
    finally:
        left = [pid for pid in seen if is_running(pid)]
        end([*left, make.pid] if make.poll() is None else left)
        make.wait()
    assert left == []
    assert f"ws://127.0.0.1:{port}/connection/websocket" in log_of(tmp_path)
    assert "Traceback" not in log_of(tmp_path)
