"""What all tests share: the limit of open files, the order of the tests, and the last time limit.

Guarantees
- No fixture here starts a process. Clusters and stores come from tests/harness.
- A test that its own time limit cannot end, as in a system call that never returns, ends the whole
  process a minute later, after the stack of every thread has been written to standard error.

Rules for `make test`, which runs several processes at once because most tests mostly wait
- The tests of one file run in one process, one after the other: they share clusters and stores.
- All drills run in one process: they change things of the whole machine, such as control groups.
- Long ones begin first.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis.internal.conjecture import engine

from tests.harness.grouping import GroupScheduling

HERE: Final = Path(__file__).parent
_STDERR: Final = pytest.StashKey[int]()
# How long a test's own time limit has to end it.
GRACE_SECONDS: Final = 60.0
# Hypothesis makes a failing example smaller for five minutes, longer than a test may take.
SHRINKING_SECONDS: Final = 45
# By the time they take; a folder that is not named comes last.
LONG_FIRST: Final = (
    "drilling",
    "loadtest/test_locust.py",
    "integration/test_monitoring_end_to_end.py",
    "conformance",
    "cluster",
    "unit/test_websocket_rate.py",
    "rules",
    "integration",
    "console",
    "docs",
    "fuzz",
    "contract",
)


def pytest_configure(config: pytest.Config) -> None:
    """Raise the limit of open files, as some tests hold thousands of sockets, and accept Ctrl-C."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # A shell ignores SIGINT in what it starts in the background, and our children would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    engine.MAX_SHRINKING_SECONDS = SHRINKING_SECONDS
    # Nothing is captured yet.
    config.stash[_STDERR] = os.dup(2)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """End the process if the test's own time limit does not end the test."""
    seconds = time_limit(item) + GRACE_SECONDS
    faulthandler.dump_traceback_later(seconds, exit=True, file=item.config.stash[_STDERR])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the long ones first."""
    items.sort(key=_rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    """Keep the tests of a group in one process."""
    return GroupScheduling(config, log)


def time_limit(item: pytest.Item) -> float:
    """The seconds that pytest-timeout gives a test; a marker overrides what is configured."""
    marker = item.get_closest_marker("timeout")
    configured = item.config.getoption("timeout", None) or item.config.getini("timeout") or 0.0
    return float(marker.args[0] if marker and marker.args else configured)


def _place(item: pytest.Item) -> str:
    return item.path.relative_to(HERE).as_posix()


def _rank(item: pytest.Item) -> int:
    place = _place(item)
    ranks = (n for n, start in enumerate(LONG_FIRST) if place.startswith(start))
    return next(ranks, len(LONG_FIRST))
