"""A soak's verdict: quiet only if nothing fired that may not, the roll was seen, and nothing was lost."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.alerting.prometheus import Alert, Rule
from cluster.errors import NotAnswering
from loadtest.drilling.report import write
from loadtest.drilling.result import RunResult
from loadtest.drilling.soak import Soak

CLEAN = {
    "lost": 0,
    "twice": 0,
    "out_of_order": 0,
    "unrecoverable": 0,
    "is_final": True,
    "acknowledged": 100,
    "got": 900,
}


def rule(name: str, state: str = "inactive") -> Rule:
    labels = {"alertname": name, "severity": "warning", "team": "websocket"}
    alerts = () if state == "inactive" else (Alert(labels, {}, state, time.time(), "1"),)
    return Rule(name, "g", state, "ok", "", time.time(), 0.0, "up > 1", labels, {}, alerts)


class Prometheus:
    """Answers with the rules it was given, one look after the other."""

    def __init__(self, *looks: list[Rule] | None) -> None:
        self._looks = list(looks)

    def rules(self) -> list[Rule]:
        look = self._looks.pop(0)
        if look is None:
            raise NotAnswering("away")
        return look

    def query(self, expression: str) -> list[Any]:
        return []


def soaked(*looks: list[Rule] | None, account: dict[str, Any] | None = None) -> RunResult:
    run = RunResult("compressed", 15, time.time(), "test", {}, kind="soak")
    soak = Soak(run, seconds=60)
    environment: Any = SimpleNamespace(prometheus=Prometheus(*looks), name="soak", compress=15)
    for _ in looks:
        soak._record(environment)
    soak._ledger = CLEAN if account is None else account
    soak.judge()
    return run


DEPLOYED = rule("DeploymentCompleted", "firing")


def test_a_roll_that_was_seen_and_nothing_else_is_quiet():
    run = soaked([DEPLOYED, rule("HighErrorRate"), rule("Watchdog", "firing")])
    assert run.is_passed
    assert run.faults == []
    assert "3 alerts watched for 60 s; 100 published, 900 delivered" in run.notes


def test_what_is_only_pending_is_noted_and_no_fault():
    run = soaked([DEPLOYED, rule("HighErrorRate", "pending")])
    assert run.is_passed
    assert "pending for a while: HighErrorRate" in run.notes


def test_an_alert_that_fired_once_is_a_fault_for_good():
    run = soaked([DEPLOYED, rule("HighErrorRate", "firing")], [DEPLOYED, rule("HighErrorRate")])
    assert not run.is_passed
    [failed] = [one for one in run.results if one.result == "failed"]
    assert (failed.alert, failed.failed_at) == ("HighErrorRate", "firing")


def test_a_roll_without_an_alert_is_a_fault():
    run = soaked([rule("DeploymentCompleted"), rule("HighErrorRate")])
    assert not run.is_passed
    assert "DeploymentCompleted did not fire" in run.faults[0]


@pytest.mark.parametrize(
    "change",
    [{"lost": 1}, {"twice": 2}, {"unrecoverable": 1}, {"is_final": False}, {"acknowledged": 0}],
    ids=str,
)
def test_a_ledger_that_is_not_clean_is_a_fault_in_every_report(
    change: dict[str, Any], tmp_path: Path
):
    run = soaked([DEPLOYED], account={**CLEAN, **change})
    assert not run.is_passed
    write.write(run, tmp_path)
    assert json.loads((tmp_path / "drill.json").read_text())["is_passed"] is False
    assert 'failures="1"' in (tmp_path / "drill.xml").read_text()
    assert "not accounted for" in (tmp_path / "drill.html").read_text()


def test_a_load_that_left_no_ledger_is_a_fault():
    assert not soaked([DEPLOYED], account={}).is_passed


def test_a_prometheus_that_is_away_for_a_moment_ends_no_soak():
    run = soaked([DEPLOYED], None, [DEPLOYED])
    assert run.is_passed
    assert "Prometheus did not answer 1 times" in run.notes


def test_a_soak_that_saw_nothing_has_not_passed():
    assert not soaked().is_passed
