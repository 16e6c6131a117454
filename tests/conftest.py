"""What all tests share: a bound on open files that is the same everywhere, and who runs beside whom.

Guarantee: no fixture here starts a process; whoever needs a cluster or a store takes it from
tests/harness.

Rules for `make test`, which runs several processes at a time because most tests wait most of the time
- The tests of one file run in one process, one after the other: they share clusters and stores.
- All drills run in one process: they look at what the whole machine has, such as control groups.
- Long ones begin first.
"""

from __future__ import annotations

import resource
import signal
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent
TOGETHER: Final = ("drilling",)
# By the time they take; whatever is not named comes last.
LONG_FIRST: Final = (
    "drilling",
    "loadtest/test_locust.py",
    "integration/test_monitoring_end_to_end.py",
    "conformance",
    "cluster",
    "rules",
    "integration",
    "console",
    "docs",
    "fuzz",
    "contract",
)


def pytest_configure() -> None:
    """Raise the limit of open files, since stories hold thousands of sockets; let Ctrl-C be heard."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # A shell ignores Ctrl-C for what it starts in the background, and so would every program we start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests belong together, and bring the long ones to the front."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=_rank)


def _place(item: pytest.Item) -> str:
    return item.path.relative_to(HERE).as_posix()


def _group(item: pytest.Item) -> str:
    place = _place(item)
    folder = place.partition("/")[0]
    return folder if folder in TOGETHER else place


def _rank(item: pytest.Item) -> int:
    place = _place(item)
    ranks = (n for n, start in enumerate(LONG_FIRST) if place.startswith(start))
    return next(ranks, len(LONG_FIRST))
