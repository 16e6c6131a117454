"""Every injected fault is undone: by the drill, or by the undo daemon if the drill is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from loadtest.drilling import undo
from loadtest.drilling.undo import UndoLog
from tests.architecture.tree import ROOT


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "300"])
    yield process
    process.kill()
    process.wait()


def state(pid: int) -> str:
    return str(psutil.Process(pid).status())


def until(look, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def test_the_last_broken_is_undone_first(tmp_path: Path):
    file = tmp_path / "config"
    file.write_text("first")
    with UndoLog() as undo_log:
        numbers = [undo_log.note(undo.written(file))]
        file.write_text("second")
        numbers.append(undo_log.note(undo.written(file)))
        file.write_text("third")
        assert undo_log.undo(numbers) == []
    assert file.read_text() == "first"


def test_a_stopped_process_goes_on(sleeper: subprocess.Popen[bytes]):
    with UndoLog() as undo_log:
        number = undo_log.note(undo.signalled(sleeper.pid, signal.SIGCONT))
        os.kill(sleeper.pid, signal.SIGSTOP)
        until(lambda: state(sleeper.pid) == psutil.STATUS_STOPPED)
        undo_log.undo([number])
        until(lambda: state(sleeper.pid) != psutil.STATUS_STOPPED)


def test_a_process_of_another_time_with_the_same_number_is_let_alone(
    sleeper: subprocess.Popen[bytes],
):
    action = {**undo.ended(sleeper.pid), "started": 1}
    undo.carry_out(action)
    assert sleeper.poll() is None


def test_a_stopped_process_can_be_ended(sleeper: subprocess.Popen[bytes]):
    os.kill(sleeper.pid, signal.SIGSTOP)
    undo.carry_out(undo.ended(sleeper.pid))
    assert not undo.is_same(sleeper.pid, undo.started(sleeper.pid))


def test_what_cannot_be_undone_is_said_and_the_rest_is_undone(tmp_path: Path):
    file = tmp_path / "left"
    file.write_text("x")
    with UndoLog() as undo_log:
        numbers = [undo_log.note(undo.removed(file)), undo_log.note(undo.run(["false"]))]
        [fault] = undo_log.undo(numbers)
    assert "could not be undone" in fault
    assert not file.exists()


PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from loadtest.drilling import undo
from loadtest.drilling.undo import UndoLog
pid, file = int(sys.argv[1]), Path(sys.argv[2])
with UndoLog() as undo_log:
    undo_log.note(undo.signalled(pid, signal.SIGCONT))
    os.kill(pid, signal.SIGSTOP)
    undo_log.note(undo.written(file))
    file.write_text("broken")
    undo_log.undo([undo_log.note(undo.removed(file.with_name("undone already")))])
    print("broken", flush=True)
    time.sleep(300)
"""


def test_the_undo_daemon_undoes_all_when_the_drill_is_killed(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
):
    file = tmp_path / "config"
    file.write_text("whole")
    drill = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(sleeper.pid), str(file)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert drill.stdout is not None
    assert drill.stdout.readline() == b"broken\n"
    # A signal is on its way for a moment.
    until(lambda: state(sleeper.pid) == psutil.STATUS_STOPPED)
    drill.kill()
    drill.wait()
    until(lambda: state(sleeper.pid) != psutil.STATUS_STOPPED)
    until(lambda: file.read_text() == "whole")


def test_the_undo_daemon_says_what_it_cannot_do():
    broken = {"number": 1, "undo": undo.run(["false"])}
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.drilling.undo_daemon"],
        input=json.dumps(broken) + "\n",
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=30,
    )
    assert done.returncode == 1
    assert "could not be undone" in done.stderr


def test_a_line_that_was_cut_is_ignored(tmp_path: Path):
    """The drill died while it wrote down the next entry."""
    file = tmp_path / "file"
    file.write_text("well")
    line = json.dumps({"number": 1, "undo": dict(undo.written(file))})
    file.write_text("broken")
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.drilling.undo_daemon"],
        input=(line + "\n" + line[: len(line) // 2]).encode(),
        cwd=ROOT,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0
    assert file.read_text() == "well"


def test_what_could_not_be_undone_is_tried_again_by_the_daemon(tmp_path: Path):
    marker = tmp_path / "later"
    command = ["sh", "-c", f"test -e {marker} && touch {tmp_path}/undone"]
    with UndoLog() as undo_log:
        number = undo_log.note(undo.run(command))
        [fault] = undo_log.undo([number])
        assert "could not be undone" in fault
        marker.touch()
    assert (tmp_path / "undone").exists()
    assert undo_log.faults == []


def test_what_is_never_undone_is_a_fault_in_the_end():
    with UndoLog() as undo_log:
        number = undo_log.note(undo.run(["false"]))
        undo_log.undo([number])
    assert len(undo_log.faults) == 1


def test_nothing_more_is_broken_without_a_daemon(tmp_path: Path):
    with UndoLog() as undo_log:
        os.kill(undo_log.pid, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(undo_log.pid) or state(undo_log.pid) == "zombie")
        with pytest.raises(undo.UndoDaemonGone):
            undo_log.note(undo.removed(tmp_path / "file"))
