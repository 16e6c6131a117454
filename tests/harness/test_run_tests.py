"""`make test` in CI: a failed test gets a second run, alone; every other failure fails the run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.run_tests import FAILED, NONE_SELECTED, PASSED, run_with_second_chance, sessions, worst
from tests.harness.cluster import REPOSITORY

PASSES = "def test_that_passes():\n    pass\n"
FLAKY = """
from pathlib import Path

def test_that_passes_the_second_time():
    seen = Path(__file__).with_name("seen")
    was_there = seen.exists()
    seen.touch()
    assert was_there
"""
BROKEN = "def test_that_never_passes():\n    assert False\n"
CRASHES = "import os\n\ndef test_that_ends_the_process():\n    os._exit(1)\n"
CRASHES_THE_SECOND_TIME = FLAKY.replace(
    "assert was_there", "assert was_there\n    __import__('os')._exit(1)"
)
ALONE: list[str] = []
BESIDE = ["--numprocesses", "2"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own, in which the sessions run."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -q -p no:locust\n")
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(
    folder: Path, capfd: pytest.CaptureFixture[str], *how: str, **texts: str
) -> tuple[int, str]:
    """Run one session for each file; returns the exit code and what was printed."""
    for name, text in texts.items():
        (folder / f"test_{name}.py").write_text(text)
    code = run_with_second_chance([[*how, f"test_{name}.py"] for name in texts])
    return code, capfd.readouterr().out


def test_a_run_without_a_failure_passes(folder: Path, capfd: pytest.CaptureFixture[str]):
    code, out = run(folder, capfd, one=PASSES, other=PASSES)
    assert code == PASSED
    assert "once more" not in out


def test_a_test_that_passes_the_second_time_is_named_and_the_run_passes(
    folder: Path, capfd: pytest.CaptureFixture[str]
):
    code, out = run(folder, capfd, one=PASSES, other=FLAKY)
    assert code == PASSED
    assert "flaky: test_other.py::test_that_passes_the_second_time\n" in out
    assert out.count("flaky: ") == 1


def test_a_test_that_fails_twice_fails_the_run(folder: Path, capfd: pytest.CaptureFixture[str]):
    code, out = run(folder, capfd, one=FLAKY, other=BROKEN)
    assert code == FAILED
    assert "flaky: test_one.py::test_that_passes_the_second_time\n" in out
    assert "failed twice: test_other.py::test_that_never_passes\n" in out


@pytest.mark.parametrize("how", [ALONE, BESIDE])
def test_a_crash_fails_the_run(folder: Path, capfd: pytest.CaptureFixture[str], how: list[str]):
    code, out = run(folder, capfd, *how, one=FLAKY, other=CRASHES)
    assert code != PASSED
    assert "flaky: test_other.py" not in out


def test_a_crash_in_the_second_run_fails_the_run(folder: Path, capfd: pytest.CaptureFixture[str]):
    code, out = run(folder, capfd, one=FLAKY, other=CRASHES_THE_SECOND_TIME)
    assert code != PASSED
    assert "flaky: " not in out


def test_a_collection_error_fails_the_run(folder: Path, capfd: pytest.CaptureFixture[str]):
    code, out = run(folder, capfd, one=FLAKY, other="import not_there\n")
    assert code not in {PASSED, NONE_SELECTED}
    assert "flaky: " not in out


def test_a_usage_error_fails_the_run(folder: Path):
    assert run_with_second_chance([["--no-such-option"]]) == 4


def test_a_session_that_selects_no_test_is_no_failure_unless_all_do(folder: Path):
    assert worst([PASSED, NONE_SELECTED]) == PASSED
    assert worst([NONE_SELECTED, NONE_SELECTED]) == NONE_SELECTED
    assert worst([FAILED, 3]) == 3
    assert worst([FAILED, PASSED]) == FAILED


def test_tests_of_a_file_and_all_drills_run_in_one_process_each():
    files = ("tests/unit/test_durations.py", "tests/unit/test_backoff.py")
    drills = ("tests/drilling/test_schedule.py", "tests/drilling/test_report.py")
    arguments = sessions("3")[0]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", *arguments, *files, *drills],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    processes: dict[str, set[str]] = {}
    for process, name in re.findall(r"(?m)^\[(gw\d+)\].* PASSED (\S+?)::", done.stdout):
        processes.setdefault("drills" if name in drills else name, set()).add(process)
    assert processes.keys() == {*files, "drills"}
    assert {name: len(used) for name, used in processes.items() if len(used) > 1} == {}


def test_ci_asks_for_the_second_run():
    assert "\nexport RERUN_FAILED=true\n" in (REPOSITORY / ".ci" / "run").read_text()


def test_ci_runs_the_stories_of_the_containers():
    text = (REPOSITORY / ".ci" / "run").read_text()
    assert "make test-compose\n" in text
    assert "make test-swarm " in text
    assert (
        text.index("make compose-images") < text.index("make check") < text.index("\nmake test\n")
    )
    # Images are made before the first test that measures time.
    assert text.index("make check\nfinish\n") < text.index("\nmake test\n")
    assert text.index("make test-swarm ") < text.rindex("\nfinish\n")
