"""Answers that were kept are drawn with the dashboards of today, if these ask the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scripts.dashboards.__main__ import FOLDER
from tests.drawing.__main__ import use_dashboard_of_today
from tests.drawing.digests import digest


def kept() -> dict[str, Any]:
    """A document whose dashboard is that of today."""
    return {"dashboard": json.loads((FOLDER / "ws-capacity.json").read_text(encoding="utf-8"))}


def test_a_kept_dashboard_is_drawn_in_its_units_of_today():
    document = kept()
    today = digest(document["dashboard"])
    document["dashboard"]["panels"][1]["fieldConfig"]["defaults"]["unit"] = "miles"
    assert digest(document["dashboard"]) != today
    use_dashboard_of_today(document)
    assert digest(document["dashboard"]) == today


def test_kept_answers_of_another_query_are_not_drawn():
    document = kept()
    document["dashboard"]["panels"][1]["targets"][0]["expr"] = "up"
    with pytest.raises(SystemExit, match=r"ws-capacity.json asks otherwise"):
        use_dashboard_of_today(document)
