"""The table of what there is: each row has a command, and tests that exist."""

from __future__ import annotations

import re

import pytest

from tests.architecture.tree import ROOT

SECTION = (
    (ROOT / "docs" / "README.md").read_text(encoding="utf-8").partition("\n## What it does")[2]
)
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in re.findall(r"(?m)^\| .*\|$", SECTION)
][2:]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_has_a_command_and_tests_that_exist(row: list[str]):
    _, command, tests = row
    assert command
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", tests)
    assert len(named) == tests.count("::") > 0
    for path, name in named:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"(?m)^(?:async )?def {name}\(", text), f"{path} has no {name}"
    for script in re.findall(r"`(?:\./)?((?:docker|scripts)/[\w-]+\.sh)", command):
        assert (ROOT / script).is_file(), script


def test_every_part_that_a_user_meets_has_a_row():
    whats = " ".join(row[0] for row in ROWS).lower()
    for part in ("worker", "session", "metrics", "shutdown", "replicas", "locust", "alerts", "grafana"):  # fmt: skip
        assert part in whats, part
