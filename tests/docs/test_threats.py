"""Every test that the page of threats names exists, and pytest collects it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.architecture.tree import ROOT

PAGE = ROOT / "docs" / "topics" / "threats.md"
PARTS = {
    "clients", "backend API", "proxies", "admin port", "console", "store", "nginx", "monitoring", "files",
    "supply chain", "applications",
}  # fmt: skip
_NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def rows() -> Iterator[list[str]]:
    """The cells of each row of the table."""
    for line in PAGE.read_text().splitlines():
        if re.match(r"\| [STRIDE] \|", line):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def named() -> list[tuple[str, str]]:
    """Each file and test of the table."""
    return sorted({(file, test) for row in rows() for file, test in _NAMED.findall(row[-1])})


def test_every_row_has_a_threat_a_control_and_a_test():
    for row in rows():
        assert len(row) == 5, row
        assert all(row), row
        names = _NAMED.findall(row[-1])
        assert names, row
        assert row[-1] == ", ".join(f"`{file}::{test}`" for file, test in names), row


def test_every_part_and_every_kind_of_threat_has_rows():
    assert {row[1] for row in rows()} >= PARTS
    assert {row[0].strip("| ") for row in rows()} == set("STRIDE")


def test_every_file_that_tests_a_control_of_clients_is_named():
    """A control that has tests and no row would be left out of a review."""
    kinds = (
        "auth*", "permission*", "subscription_tokens", "application_limits", "tags_filter",
        "delta_groups", "fossil_delta", "join_leave", "address_limits", "websocket_limits",
        "proxy_options", "private_files", "url_credentials",
    )  # fmt: skip
    files = {
        f"unit/{path.name}"
        for kind in kinds
        for path in (ROOT / "tests" / "unit").glob(f"test_{kind}.py")
    }
    assert len(files) >= len(kinds)
    assert files - {file for file, _ in named()} == set()


@pytest.mark.parametrize(("file", "test"), named())
def test_a_named_test_exists(file: str, test: str):
    text = (ROOT / "tests" / file).read_text()
    assert re.search(rf"(?m)^(?:async )?def {test}\(", text)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_named_test_is_collected():
    wanted = [f"tests/{file}::{test}" for file, test in named()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *wanted],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=840,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    missing = [name for name in wanted if name not in done.stdout]
    assert missing == []
