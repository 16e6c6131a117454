"""The summary of the drills in real durations names every alert, and its page says what it says."""

from __future__ import annotations

import copy
import json

from loadtest.drilling.result import DrillResult, RunResult
from loadtest.drills import registered
from scripts.drill_page import FOLDER, latest, missing, page, read_summary, summary_of, text_of
from tests.rules import promtool


def test_every_alert_was_proven_in_real_durations():
    summary = read_summary()
    for run in (summary["first"], *summary["later"]):
        assert (run["kind"], run["profile"], run["compress"]) == ("drill", "production", 1)
        assert (run["uncovered"], run["faults"]) == ([], [])
    assert missing(summary, set(promtool.alerts())) == set()
    assert latest(summary).keys() == set(registered())
    assert {one["result"] for one in latest(summary).values()} <= {"passed", "simulated"}


def test_an_alert_of_the_rules_that_the_summary_lacks_is_noticed():
    summary = copy.deepcopy(read_summary())
    summary["first"]["alerts"] = [
        one for one in summary["first"]["alerts"] if one["alert"] != "SlowConsumers"
    ]
    assert missing(summary, set(promtool.alerts())) == {"SlowConsumers"}


def test_a_later_run_of_another_cause_hides_no_result_of_the_alert():
    summary = copy.deepcopy(read_summary())
    [first] = [one for one in summary["first"]["alerts"] if one["alert"] == "HighErrorRate"]
    run = {**summary["first"], "alerts": [{**first, "variant": "moon", "result": "failed"}]}
    found = latest({**summary, "later": [*summary["later"], run]})
    assert (found["HighErrorRate"]["result"], found["HighErrorRate/moon"]["result"]) == (
        first["result"],
        "failed",
    )


def test_the_soak_watched_every_alert_and_was_quiet():
    soak = read_summary()["soak"]
    assert (soak["kind"], soak["profile"], soak["is_passed"]) == ("soak", "production", True)
    assert set(soak["alerts"]) == set(promtool.alerts())


def test_the_page_says_what_the_summary_says():
    assert (FOLDER / "README.md").read_text() == page(read_summary())


def test_the_summary_is_what_the_script_writes():
    assert (FOLDER / "summary.json").read_text() == text_of(read_summary())


def test_a_report_as_a_run_writes_it_can_be_summarised():
    result = DrillResult(
        alert="SlowConsumers",
        drill="slow_consumers",
        severity="warning",
        team="websocket",
        proof="full",
        breaks="clients do not read",
        undo="they leave",
        environment="environment-1",
        compress=1.0,
        started_at=1.0,
        result="passed",
        step_times={"provoked": 2.0, "firing": 5.5},
    )
    run = RunResult("production", 1.0, 0.0, "a cluster of its own", {}, results=[result])
    summary = summary_of(json.loads(json.dumps(run.to_document())))
    [one] = summary["alerts"]
    assert (one["alert"], one["result"], one["firing_seconds"]) == ("SlowConsumers", "passed", 3.5)
    assert (summary["is_passed"], summary["counts"]["passed"]) == (True, 1)


def test_only_the_page_and_its_summary_are_kept():
    assert sorted(path.name for path in FOLDER.iterdir()) == ["README.md", "summary.json"]
