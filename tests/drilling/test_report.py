"""The report of a run: for programs, for CI, for a person; and what the terminal shows."""

from __future__ import annotations

import io
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from loadtest.drilling.report import write
from loadtest.drilling.report.progress import Progress
from loadtest.drilling.report.timeline import timeline
from loadtest.drilling.result import DrillResult, ReceiverState, RunResult

BEGAN = 1_000_000.0


def result(alert: str = "HighErrorRate") -> DrillResult:
    one = DrillResult(
        alert=alert,
        drill="high_error_rate",
        severity="critical",
        team="websocket",
        proof="full",
        breaks="the store is <b>killed</b> & gone",
        undo="it is started",
        environment="environment-1",
        compress=15.0,
        started_at=BEGAN,
        ended_at=BEGAN + 40,
        result="passed",
    )
    one.step_times = {
        "baseline": BEGAN + 1,
        "provoked": BEGAN + 2,
        "pending": BEGAN + 4,
        "firing": BEGAN + 12.25,
        "notified": BEGAN + 14,
        "undone": BEGAN + 15,
        "resolved": BEGAN + 30,
        "resolve_notified": BEGAN + 33,
    }
    one.notified = [ReceiverState("slack", "#websocket-oncall", BEGAN + 14)]
    one.samples = [(BEGAN + 2, None), (BEGAN + 3, 1.0), (BEGAN + 12, 60.0), (BEGAN + 30, 2.0)]
    one.evidence = {"prometheus": {"labels": {"alertname": alert}, "value": float("nan")}}
    return one


def broken() -> DrillResult:
    one = result("HighDiskUsage")
    one.result, one.failed_at, one.why = (
        "failed",
        "notified",
        "route: \x00nothing arrived at <slack>",
    )
    del one.step_times["notified"], one.step_times["resolved"], one.step_times["resolve_notified"]
    return one


@pytest.fixture
def run() -> RunResult:
    one = RunResult("compressed", 15.0, BEGAN, "a cluster of its own", {"cores": 2})
    one.results = [result(), broken()]
    one.uncovered = ["HasNoDrill"]
    one.ended_at = BEGAN + 50
    return one


@pytest.fixture
def folder(run: RunResult, tmp_path: Path) -> Path:
    write.write(run, tmp_path)
    return tmp_path


def test_the_document_has_the_promised_form(folder: Path):
    document = json.loads((folder / "drill.json").read_text())
    assert document["profile"] == "compressed"
    passed, failed = document["alerts"]
    assert (passed["alert"], passed["result"]) == ("HighErrorRate", "passed")
    assert (passed["pending_seconds"], passed["firing_seconds"], passed["resolved_seconds"]) == (
        2.0,
        10.25,
        28.0,
    )
    assert passed["notified"] == ["slack #websocket-oncall"]
    assert passed["evidence"]["prometheus"]["value"] is None
    assert (failed["result"], failed["failed_at"], failed["resolved_seconds"]) == (
        "failed",
        "notified",
        None,
    )
    assert document["is_passed"] is False
    assert document["uncovered"] == ["HasNoDrill"]


def test_nothing_half_written_is_left(folder: Path):
    assert sorted(path.name for path in folder.iterdir()) == sorted(write.NAMES)


def test_ci_reads_one_case_per_alert_and_a_failure_for_each_that_is_not_proven(folder: Path):
    suite = ET.parse(folder / "drill.xml").getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    failures = {
        case.get("name"): failure.get("message")
        for case in suite.iter("testcase")
        if (failure := case.find("failure")) is not None
    }
    assert failures == {
        "HighDiskUsage": "route: �nothing arrived at <slack>",
        "HasNoDrill": "no drill is registered for this alert",
    }


def test_the_page_shows_everything_and_needs_nothing(folder: Path):
    page = (folder / "drill.html").read_text()
    assert "<b>killed</b>" not in page
    assert "&lt;b&gt;killed&lt;/b&gt; &amp; gone" in page
    assert "HasNoDrill" in page
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert "src=" not in page
    assert "@import" not in page
    assert page.index("HighDiskUsage") < page.index("HighErrorRate"), "what failed comes first"


def test_a_picture_has_its_marks_where_they_happened():
    drawn = ET.fromstring(timeline(result(), threshold=10.0))
    words = " ".join("".join(drawn.itertext()).split())
    for mark in ("pending", "firing", "threshold 10", "Slack #websocket-oncall"):
        assert mark in words


def test_an_alert_without_any_value_still_has_a_picture():
    one = result()
    one.samples = []
    assert ET.fromstring(timeline(one)).tag.endswith("svg")


@pytest.mark.parametrize("is_terminal", [False, True])
def test_only_a_terminal_gets_a_live_table(run: RunResult, is_terminal: bool):
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=is_terminal, width=100)
    with Progress(run, planned=2, console=console) as screen:
        screen.started(run.results[0])
        screen.stepped(run.results[0], "firing")
        for one in run.results:
            screen.ended(one)
    text = shown.getvalue()
    assert ("\x1b[" in text) is is_terminal
    assert "HighErrorRate" in text
    assert "notified: route:" in text
    if not is_terminal:
        # Two alerts, a reason, a summary: no line for a step.
        assert "firing\n" not in text
        assert len(text.splitlines()) <= 5


def test_a_report_tells_two_drills_of_one_alert_apart(run: RunResult, tmp_path: Path):
    other = result()
    other.variant = "handler"
    run.results.append(other)
    write.write(run, tmp_path)
    names = [
        case.get("name") for case in ET.parse(tmp_path / "drill.xml").getroot().iter("testcase")
    ]
    assert {"HighErrorRate", "HighErrorRate/handler"} <= set(names)
    assert len(names) == len(set(names))
    page = (tmp_path / "drill.html").read_text()
    assert 'id="HighErrorRate"' in page
    assert 'id="HighErrorRate/handler"' in page
    documents = json.loads((tmp_path / "drill.json").read_text())["alerts"]
    assert [one["variant"] for one in documents if one["alert"] == "HighErrorRate"] == [
        "",
        "handler",
    ]
