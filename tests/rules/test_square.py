"""Every alert has four parts: a unit test, a runbook, a panel and a drill.

docker/square.yml names them, and one that does not exist fails. That every drill is of an alert is held by
tests/drilling/test_drill_cli.py.
"""

from __future__ import annotations

import json
import re

import pytest
import yaml

from tests.architecture.tree import ROOT, files
from tests.rules import promtool
from tests.rules.cases import CASES

SQUARE = yaml.safe_load((ROOT / "docker" / "square.yml").read_text())
PARTS = ("runbooks", "panels", "drills")


def runbooks() -> set[str]:
    """Names of alerts that have a page."""
    return {path.stem for path in files() if path.parent == ROOT / "docs" / "runbooks"}


def panels() -> set[str]:
    """The panels of the dashboards: each has `panel:<name>` somewhere in its JSON."""
    dashboards = [p for p in files() if p.suffix == ".json" and "grafana" in p.parts]
    text = " ".join(json.dumps(json.loads(p.read_text())) for p in dashboards)
    return set(re.findall(r"panel:([a-z0-9-]+)", text))


def drills() -> set[str]:
    """One file per drill, named for it."""
    folder = ROOT / "loadtest" / "drills"
    return {path.stem for path in files() if path.parent == folder and path.suffix == ".py"}


def wanted(part: str) -> set[str]:
    if part == "runbooks":
        return set(SQUARE["alerts"])
    return {entry[part.removesuffix("s")] for entry in SQUARE["alerts"].values()}


def present(part: str) -> set[str]:
    return {"runbooks": runbooks, "panels": panels, "drills": drills}[part]()


def test_every_alert_is_in_the_square_with_a_panel_and_a_drill():
    assert list(SQUARE["alerts"]) == list(promtool.alerts())
    assert all(set(entry) == {"panel", "drill"} for entry in SQUARE["alerts"].values())


def test_every_alert_has_unit_tests():
    assert list(CASES) == list(promtool.alerts())


def test_every_alert_has_a_drill_of_its_own():
    names = [entry["drill"] for entry in SQUARE["alerts"].values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_exists(part: str):
    assert wanted(part) - present(part) == set(), f"write these {part}"


def test_the_square_has_nothing_but_alerts_and_variants():
    assert set(SQUARE) == {"alerts", "variants"}
