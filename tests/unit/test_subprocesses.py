"""One child process without an event loop: its session, its log, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.children.subprocesses import Subprocess


def started(tmp_path: Path, script: str, **options) -> Subprocess:
    child = Subprocess("child", ["sh", "-c", script], log=tmp_path / "child.log", **options)
    child.start()
    return child


def test_a_child_leads_a_session_of_its_own(tmp_path: Path):
    child = started(tmp_path, "exec sleep 60")
    try:
        assert os.getsid(child.pid) == child.pid
    finally:
        child.kill()


def test_what_it_wrote_last_is_given_on_one_line(tmp_path: Path):
    child = started(tmp_path, "echo one; echo; echo two >&2")
    assert child.wait(time.monotonic() + 10)
    assert (child.last_lines(), child.last_lines(5), child.exit_code) == ("two", "one | two", 0)


def test_a_child_that_ignores_term_is_killed_at_the_deadline(tmp_path: Path):
    child = started(tmp_path, "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    while child.last_lines() != "ready":
        time.sleep(0.01)
    child.terminate()
    child.stop(time.monotonic() + 0.2)
    assert child.exit_code == -signal.SIGKILL


def test_a_child_that_was_not_started_has_no_pid(tmp_path: Path):
    child = Subprocess("child", ["true"], log=tmp_path / "child.log")
    assert not child.is_running
    with pytest.raises(ProcessLookupError, match="child has not been started"):
        _ = child.pid


def test_a_full_log_is_emptied_and_one_older_copy_is_kept(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("cluster.children.subprocesses._MAX_LOG_BYTES", 3)
    log = tmp_path / "child.log"
    log.write_text("older\n")
    child = started(tmp_path, "echo new")
    assert child.wait(time.monotonic() + 10)
    assert (log.read_text(), (tmp_path / "child.log.1").read_text()) == ("new\n", "older\n")


@pytest.mark.parametrize("has_signal", [True, False])
def test_only_a_child_with_a_death_signal_ends_with_its_parent(tmp_path: Path, has_signal: bool):
    argument = "" if has_signal else ", death_signal=None"
    parent = (
        "import sys, pathlib, os, signal\n"
        "from cluster.children.subprocesses import Subprocess\n"
        f"child = Subprocess('child', ['sleep', '60'], log=pathlib.Path(sys.argv[1]){argument})\n"
        "child.start()\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", parent, str(tmp_path / "log")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    pid = int(done.stdout)
    stat = Path(f"/proc/{pid}/stat")

    def is_running() -> bool:
        try:
            return stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False

    try:
        deadline = time.monotonic() + (10 if has_signal else 0.3)
        while is_running() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert is_running() is not has_signal
    finally:
        if is_running():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("death_signal", [signal.SIGTERM, None])
def test_a_child_gains_no_privileges_and_its_log_is_private(tmp_path: Path, death_signal):
    child = started(tmp_path, "grep NoNewPrivs /proc/self/status", death_signal=death_signal)
    assert child.wait(time.monotonic() + 10)
    assert child.last_lines().split() == ["NoNewPrivs:", "1"]
    assert child.log.stat().st_mode & 0o777 == 0o600
