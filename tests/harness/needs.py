"""What a test needs of its machine: where CI=true nothing that can be installed may be missing.

Rules
- A program or a package that `make test` installs: without it a test is skipped, and fails where CI=true.
- The rights of root, and a kernel that grants them: without them a test is skipped, and fails where
  ROOT_TESTS=required, as in `.ci/run`. `make test` of another user goes on.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def _is_ci() -> bool:
    return os.environ.get("CI") == "true"


def _is_root_required() -> bool:
    return os.environ.get("ROOT_TESTS") == "required"


def needs(is_there: object, reason: str) -> pytest.MarkDecorator:
    """Skip a test if something is not there; where CI=true it runs, and fails by itself."""
    return pytest.mark.skipif(not is_there and not _is_ci(), reason=reason)


def needs_root(reason: str) -> pytest.MarkDecorator:
    """Skip a test of another user; where root is required it runs, and fails by itself."""
    return pytest.mark.skipif(os.geteuid() != 0 and not _is_root_required(), reason=reason)


def is_missing(reason: str) -> NoReturn:
    """End a test that finds something missing: it is skipped, and has failed where CI=true."""
    if _is_ci():
        pytest.fail(reason)
    pytest.skip(reason)


def is_not_permitted(reason: str) -> NoReturn:
    """End a test that may not do what root may: it is skipped, and has failed where root is required."""
    if _is_root_required():
        pytest.fail(reason)
    pytest.skip(reason)
