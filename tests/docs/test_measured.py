"""The README's table is a short form of a stored result: at most ten rows, every figure unchanged."""

from __future__ import annotations

import json

import pytest

from benchmarks.report import BEGIN, END, SUMMARY_BEGIN, SUMMARY_END, between, summary
from benchmarks.table import Row
from tests.architecture.tree import ROOT

RESULTS = ROOT / "benchmarks" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def stored(scale: str) -> list[Row]:
    rows = json.loads((RESULTS / f"{scale}.json").read_text(encoding="utf-8"))["rows"]
    return [Row(**row) for row in rows]


def shown() -> list[str]:
    inside = README.partition(SUMMARY_BEGIN)[2].partition(SUMMARY_END)[0]
    return inside.strip().splitlines()


def test_the_readme_shows_the_summary_of_a_stored_result():
    assert "\n".join(shown()) in (summary(stored("full")), summary(stored("quick")))


def test_the_summary_has_at_most_ten_rows_and_each_comparison_once():
    rows = summary(stored("full")).splitlines()[2:]
    assert 0 < len(rows) <= 10
    subjects = [row.split(" | ")[0] for row in rows]
    assert len(set(subjects)) == len(subjects)


def test_the_summary_keeps_the_figures_of_the_full_table():
    full = (RESULTS / "full.md").read_text(encoding="utf-8")
    for line in summary(stored("full")).splitlines()[2:]:
        what, measured, bound, detail = line.strip("| ").split(" | ")
        assert any(
            row.startswith(f"| {what} | {measured} | {bound} | ") and row.endswith(f" | {detail} |")
            for row in full.splitlines()
        ), line


def test_writing_between_markers_keeps_the_rest_and_needs_both_markers():
    page = f"before\n{SUMMARY_BEGIN}\nold\n{SUMMARY_END}\nafter\n"
    assert between(page, SUMMARY_BEGIN, SUMMARY_END, "new") == page.replace("old", "new")
    assert between("no markers\n", SUMMARY_BEGIN, SUMMARY_END, "new") == "no markers\n"
    assert between(f"{SUMMARY_BEGIN}\n", SUMMARY_BEGIN, SUMMARY_END, "new") == f"{SUMMARY_BEGIN}\n"


def test_the_performance_page_shows_the_full_table_of_a_stored_result():
    page = (ROOT / "docs" / "topics" / "performance.md").read_text(encoding="utf-8")
    inside = page.partition(BEGIN)[2].partition(END)[0]
    tables = [(RESULTS / f"{s}.md").read_text(encoding="utf-8") for s in ("full", "quick")]
    without_title = [table.partition("\n\n")[2] for table in tables]
    assert inside in [f"\n{table}\n" for table in without_title]


@pytest.mark.parametrize("page", ["api.md", "presence.md", "quick.md", "full.md"])
def test_the_stored_results_with_bounds_break_none(page: str):
    rows = [
        line
        for line in (RESULTS / page).read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ]
    assert any("| pass |" in row for row in rows)
    assert not any("FAIL" in row for row in rows)
