"""The kept reports of the drills in real durations are whole, good, and what their page says."""

from __future__ import annotations

from scripts.drill_page import FILES, FOLDER, kept, page, shown
from tests.rules import promtool


def test_every_alert_was_proven_in_real_durations():
    first, later = kept()
    for run in filter(None, (first, later)):
        assert (run["kind"], run["profile"], run["compress"]) == ("drill", "production", 1)
        assert (run["uncovered"], run["faults"]) == ([], [])
    assert {one["alert"] for one in first["alerts"]} == set(promtool.alerts())
    assert {one["result"] for one in shown(first, later).values()} <= {"passed", "simulated"}


def test_the_page_says_what_the_reports_say():
    assert (FOLDER / "README.md").read_text() == page(*kept())


def test_a_person_and_a_program_find_theirs():
    assert all((FOLDER / name).stat().st_size for name in FILES)
