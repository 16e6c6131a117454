"""The square of alerts: each has a unit test, a runbook, a panel and a drill.

What is not there yet is declared pending in docker/square.yml, by name. A declaration that is no
longer true fails as well.
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
CORNERS = ("runbooks", "panels", "drills")


def runbooks() -> set[str]:
    """Names of alerts that have a page."""
    return {path.stem for path in files() if path.parent == ROOT / "docs" / "runbooks"}


def panels() -> set[str]:
    """What the dashboards say they show: each panel names itself `panel:<name>` somewhere in its JSON."""
    dashboards = [p for p in files() if p.suffix == ".json" and "grafana" in p.parts]
    text = " ".join(json.dumps(json.loads(p.read_text())) for p in dashboards)
    return set(re.findall(r"panel:([a-z0-9-]+)", text))


def drills() -> set[str]:
    """One file per drill, named for it."""
    folder = ROOT / "loadtest" / "drills"
    return {path.stem for path in files() if path.parent == folder and path.suffix == ".py"}


def wanted(corner: str) -> set[str]:
    if corner == "runbooks":
        return set(SQUARE["alerts"])
    return {entry[corner.removesuffix("s")] for entry in SQUARE["alerts"].values()}


def present(corner: str) -> set[str]:
    return {"runbooks": runbooks, "panels": panels, "drills": drills}[corner]()


def test_every_alert_is_in_the_square_with_a_panel_and_a_drill():
    assert list(SQUARE["alerts"]) == list(promtool.alerts())
    assert all(set(entry) == {"panel", "drill"} for entry in SQUARE["alerts"].values())


def test_every_alert_has_unit_tests():
    assert list(CASES) == list(promtool.alerts())


def test_every_alert_has_a_drill_of_its_own():
    names = [entry["drill"] for entry in SQUARE["alerts"].values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("corner", CORNERS)
def test_a_corner_is_there_or_declared_pending(corner: str):
    missing = wanted(corner) - present(corner) - set(SQUARE["pending"][corner])
    assert missing == set(), f"write these {corner}, or declare them pending in docker/square.yml"


@pytest.mark.parametrize("corner", CORNERS)
def test_nothing_is_pending_that_is_there_or_that_nobody_wants(corner: str):
    pending = set(SQUARE["pending"][corner])
    assert pending & present(corner) == set(), "take these off the pending list"
    assert pending - wanted(corner) == set(), "nobody wants these"
