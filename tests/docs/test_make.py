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
from tests.harness.processes import end, family, free_ports, is_running
from tests.harness.waiting import until


def log_of(folder: Path) -> str:
    return (folder / "log").read_text()


def test_ci_runs_the_checks_and_then_the_readmes_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    # Comments aside; a command may stand behind `nice` or `timeout`.
    targets = re.findall(r"^(?!\s*#).*\bmake ([a-z-]+)", script, re.MULTILINE)
    assert targets == ["install", "compose-images", "check", "test", "drill-short", "test-compose"]
    assert "$ make test" in (ROOT / "README.md").read_text()


def test_make_help_lists_the_commands_of_the_readme():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("run", "test", "check", "bench", "help"):
        assert f"  make {target} " in done.stdout


@pytest.mark.skipif(
    not Path(sys.prefix, ".stamps", "package").exists(),
    reason="this environment was not made by make",
)
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
