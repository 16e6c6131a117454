"""The kept report of the drills in real durations is whole, good, and what its page says."""

from __future__ import annotations

import json

from scripts.drill_page import FILES, FOLDER, page
from tests.rules import promtool

DOCUMENT = json.loads((FOLDER / FILES[0]).read_text())


def test_every_alert_was_proven_in_real_durations():
    assert (DOCUMENT["kind"], DOCUMENT["profile"], DOCUMENT["compress"]) == (
        "drill",
        "production",
        1,
    )
    assert DOCUMENT["is_passed"]
    assert {one["alert"] for one in DOCUMENT["alerts"]} == set(promtool.alerts())


def test_the_page_says_what_the_report_says():
    assert (FOLDER / "README.md").read_text() == page(DOCUMENT)


def test_a_person_and_a_program_find_theirs():
    assert all((FOLDER / name).stat().st_size for name in FILES)
