"""Run the tests as `make test` does: those that may run side by side, then those that measure time; or the stories.

Rules
- Every session of pytest runs, also after an earlier one failed.
- With RERUN_FAILED=true, as in CI, the tests that failed run once more, one after the other. One that
  then passes is printed as `flaky: NAME`; one that fails twice fails the run.
- Only failed tests get a second run. A session that ends in any other way (a collection error, a usage
  error, a crash, a time limit that ended the process) fails the run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PASSED: Final = 0
FAILED: Final = 1
NONE_SELECTED: Final = 5


@dataclass(frozen=True)
class Ended:
    """How a session ended: the exit code of pytest, and the tests that failed."""

    code: int
    failed: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether the failed tests explain the exit code."""
        return self.code in {PASSED, NONE_SELECTED} or (self.code == FAILED and bool(self.failed))


def sessions(jobs: str) -> list[list[str]]:
    """The arguments of each session."""
    # tests/harness/grouping.py says which tests share a process.
    beside = ["--numprocesses", jobs, "--dist", "loadscope", "--no-loadscope-reorder"]
    return [[*beside, "-m", "not full and not alone"], ["-m", "alone and not full"]]


def stories(of: str) -> list[list[str]]:
    """The arguments of the session of `make test-compose`, or of `make test-swarm`.

    One stack serves all its tests; what they measured is printed.
    """
    marks = {"compose": "full and not swarm", "swarm": "full and swarm"}
    return [["--numprocesses", "0", "-m", marks[of], "-r", "sP", "tests/compose"]]


def pytest(arguments: Sequence[str]) -> int:
    """Run pytest; returns its exit code."""
    process = subprocess.Popen([sys.executable, "-m", "pytest", *arguments])
    try:
        return process.wait()
    except KeyboardInterrupt:
        # The terminal has sent the signal to pytest as well, which reports what it has and ends.
        return process.wait()


def recorded(arguments: Sequence[str]) -> Ended:
    """Run pytest with an empty cache of its own: at its end it writes there which tests failed."""
    with tempfile.TemporaryDirectory() as cache:
        code = pytest([*arguments, "-o", f"cache_dir={cache}"])
        written = Path(cache, "v", "cache", "lastfailed")
        failed = json.loads(written.read_text()) if written.exists() else {}
    return Ended(code, tuple(failed))


def worst(codes: Sequence[int]) -> int:
    """The exit code of a run of several sessions; that a part selects no test is no failure."""
    failures = [code for code in codes if code not in {PASSED, NONE_SELECTED}]
    if failures:
        return next((code for code in failures if code != FAILED), FAILED)
    return PASSED if PASSED in codes else NONE_SELECTED


def run_with_second_chance(planned: Sequence[Sequence[str]]) -> int:
    """Run the sessions, then the failed tests once more; returns the exit code."""
    ended = [recorded(arguments) for arguments in planned]
    unknown = [one.code for one in ended if not one.is_known]
    if unknown:
        print(f"pytest ended with {unknown[0]}, which no failed test explains", flush=True)
        return unknown[0]
    failed = [name for one in ended for name in one.failed]
    if not failed:
        return worst([one.code for one in ended])
    print(f"{len(failed)} failed; they run once more, one after the other", flush=True)
    again = recorded(["--numprocesses", "0", *failed])
    if not again.is_known or again.code == NONE_SELECTED:
        print(f"pytest ended with {again.code} in the second run", flush=True)
        return again.code
    for name in failed:
        print(f"failed twice: {name}" if name in again.failed else f"flaky: {name}", flush=True)
    return again.code


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Run the tests as `make test` does.")
    parser.add_argument("--jobs", default="4", help="processes that run tests side by side")
    parser.add_argument(
        "--stories", choices=("compose", "swarm"), help="run the stories of the containers"
    )
    parser.add_argument("arguments", nargs="*", help="handed to pytest, after --")
    given = parser.parse_args(words)
    chosen = stories(given.stories) if given.stories else sessions(given.jobs)
    planned = [[*session, *given.arguments] for session in chosen]
    if os.environ.get("RERUN_FAILED") == "true":
        return run_with_second_chance(planned)
    return worst([pytest(arguments) for arguments in planned])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
