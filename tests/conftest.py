"""What all tests share: a bound on open files that is the same everywhere.

Guarantee: no fixture here starts a process; whoever needs a cluster or a store takes it from
tests/harness.
"""

from __future__ import annotations

import resource


def pytest_configure() -> None:
    """Raise the limit of open files to what the system allows: stories hold thousands of sockets."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
