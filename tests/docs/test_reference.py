"""docs/reference/ says what the code says, and the code has what the pages promise."""

from __future__ import annotations

import subprocess
import sys

from tests.architecture.tree import ROOT


def test_regenerating_the_reference_changes_nothing():
    done = subprocess.run(
        [sys.executable, "scripts/reference.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
