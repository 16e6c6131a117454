"""The last time limit: it follows the test's own, and ends what a signal cannot end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).parent.parent / "conftest.py"
GRACE = "GRACE_SECONDS: Final = 60.0"


def run(folder: Path, test: str) -> subprocess.CompletedProcess[str]:
    """Run one test under the conftest of this repository, with a grace of one second."""
    text = CONFTEST.read_text()
    assert GRACE in text
    (folder / "conftest.py").write_text(text.replace(GRACE, "GRACE_SECONDS: Final = 1.0"))
    (folder / "test_it.py").write_text(test)
    (folder / "pytest.ini").write_text("[pytest]\ntimeout = 1\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:locust", "-p", "no:cacheprovider"]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


STUCK = """
import signal, time

def test_that_ignores_the_alarm():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(50)
"""


def test_a_test_that_its_own_limit_cannot_end_ends_the_process_and_shows_every_stack(
    tmp_path: Path,
):
    done = run(tmp_path, STUCK)
    assert done.returncode == 1
    assert "test_that_ignores_the_alarm" in done.stderr
    assert "Thread 0x" in done.stderr


PATIENT = """
import time, pytest

@pytest.mark.timeout(30)
def test_that_may_take_long():
    time.sleep(2.5)
"""


def test_a_test_with_a_longer_limit_is_left_alone(tmp_path: Path):
    done = run(tmp_path, PATIENT)
    assert done.returncode == 0, done.stdout + done.stderr
