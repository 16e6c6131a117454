"""Each row of the page of limits has a bound, what was measured, and tests that exist."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest

from tests.architecture.tree import ROOT

PAGE = ROOT / "docs" / "topics" / "limits.md"
#: A benchmark is run as a module; a test, or a drill, is a file.
_NAMED = re.compile(r"`((?:[\w/]+\.py)|(?:benchmarks\.\w+))`")


def rows() -> list[list[str]]:
    """The cells of each row of the tables, without their heads."""
    lines = PAGE.read_text().splitlines()
    heads = {number for number, line in enumerate(lines) if line.startswith("| ---")}
    return [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for number, line in enumerate(lines)
        if line.startswith("| ") and number not in heads and number + 1 not in heads
    ]


def exists(name: str) -> bool:
    if name.startswith("benchmarks."):
        return find_spec(name) is not None
    return any((ROOT / folder / name).is_file() for folder in ("tests", "."))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:60])
def test_a_limit_has_a_bound_a_figure_and_a_test(row: list[str]):
    assert len(row) == 4
    assert all(row)
    assert row[2] != "as stated"
    names = _NAMED.findall(row[3])
    assert row[3] == ", ".join(f"`{name}`" for name in names)
    assert names
    assert [name for name in names if not exists(name)] == []


def test_the_kinds_of_the_page_have_rows():
    assert len(rows()) > 90
