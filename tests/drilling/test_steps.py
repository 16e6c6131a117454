"""What a step of a drill believes: a settled ledger, a real route, a payload of the right form."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from cluster.alerting.prometheus import Rule
from cluster.errors import ConfigError
from loadtest.drilling.drill import IDLE, STEADY
from loadtest.drilling.environment.cluster import Addresses, MonitoredCluster
from loadtest.drilling.environment.load import Load
from loadtest.drilling.faults.injector import FaultInjector, Interrupted
from loadtest.drilling.receivers import (
    INFRASTRUCTURE,
    ONCALL,
    PAGER,
    TEAM,
    Notifications,
    receivers_of,
)
from loadtest.drilling.result import RunResult
from loadtest.drilling.runner import DrillPlan, Runner
from loadtest.drilling.undo import UndoLog
from loadtest.drills import registered
from tests.drilling.test_soak import CLEAN, rule


@pytest.mark.parametrize(
    ("load", "change", "is_clean"),
    [
        (STEADY, {}, True),
        (STEADY, {"lost": 1}, False),
        (STEADY, {"unrecoverable": 1}, False),
        (STEADY, {"is_final": False}, False),
        (STEADY, {"acknowledged": 0}, False),
        (IDLE, {"acknowledged": 0}, True),
        (Load("churn", users=1, is_accounted=False), {"lost": 9}, True),
    ],
)
def test_a_ledger_is_clean_only_if_it_is_final_and_has_publications(
    load: Load, change: dict[str, Any], is_clean: bool
):
    assert (load.faults({**CLEAN, **change}) == {}) is is_clean


def slack(channel: str, icon: str, title: str = "[FIRING:1] x") -> dict[str, Any]:
    document = {"channel": channel, "icon_emoji": icon, "attachments": [{"title": title}]}
    return {"id": 1, "kind": "slack", "at": 1.0, "document": document}


def pager(**event: Any) -> dict[str, Any]:
    document = {
        "event_action": "trigger",
        "dedup_key": "k",
        "routing_key": "r",
        "payload": {"severity": "critical"},
        **event,
    }
    return {"id": 2, "kind": "pagerduty", "at": 2.0, "document": document}


class Receiver:
    """A stand-in that has received these."""

    def __init__(self, *entries: dict[str, Any]) -> None:
        self._entries = list(entries)

    def get(self, path: str, params: dict[str, str]) -> list[dict[str, Any]]:
        return self._entries


def arrived(*entries: dict[str, Any]) -> tuple[set[Any], str]:
    found = Notifications(Receiver(*entries), "x", 0)  # type: ignore[arg-type]
    return set(found.arrived("firing")), found.malformed()


def test_notifications_as_the_seed_wants_them_have_arrived():
    right = (
        slack("#websocket-oncall", ":rotating_light:"),
        slack("#websocket-alerts", ":warning:"),
        slack("#infrastructure-alerts", ":gear:"),
        pager(),
    )
    assert arrived(*right) == ({ONCALL, TEAM, INFRASTRUCTURE, PAGER}, "")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (slack("#websocket-oncall", ":warning:"), "#websocket-oncall has the icon ':warning:'"),
        (pager(payload={"severity": "warning"}), "the severity 'warning' instead of 'critical'"),
        (pager(dedup_key=""), "got no dedup_key"),
        (pager(routing_key=None), "got no routing_key"),
    ],
    ids=["icon", "severity", "dedup key", "routing key"],
)
def test_a_notification_of_the_wrong_form_has_not_arrived_and_is_named(
    entry: dict[str, Any], says: str
):
    receivers, fault = arrived(entry)
    assert receivers == set()
    assert says in fault


def test_the_end_of_an_alert_needs_no_icon():
    assert arrived(slack("#websocket-alerts", "", "[RESOLVED] x")) == (set(), "")


def test_a_drill_that_reaches_fewer_places_is_not_astray_where_its_route_leads():
    drill = registered()["NotificationsFailing"]
    assert drill.reaches == (PAGER,)
    assert {ONCALL, INFRASTRUCTURE} <= set(receivers_of("critical", "infrastructure"))


# --- what ends in time -----------------------------------------------------------------------


class Nowhere(MonitoredCluster):
    """An environment without parts."""

    @property
    def addresses(self) -> Addresses:
        return Addresses("", "", "", "", "", "")


def test_what_still_provokes_ends_when_the_drill_gives_up(tmp_path: Path):
    with UndoLog() as undo_log:
        parts = Nowhere("nowhere", folder=tmp_path, compress=1.0, undo_log=undo_log)
        injector = FaultInjector(parts, "test", threading.Event())
        ended = threading.Event()

        def provoke() -> None:
            with pytest.raises(Interrupted):
                injector.wait(600)
            ended.set()

        thread = threading.Thread(target=provoke)
        thread.start()
        injector.give_up()
        assert ended.wait(10)
        thread.join()
        assert injector.undo() == []


def pulses(injector: str) -> list[threading.Thread]:
    """The threads of an injector's pulses that have not ended."""
    return [thread for thread in threading.enumerate() if thread.name == f"{injector} pulse"]


def test_what_pulsed_before_the_undo_does_not_pulse_after_it(tmp_path: Path):
    with UndoLog() as undo_log:
        parts = Nowhere("nowhere", folder=tmp_path, compress=1.0, undo_log=undo_log)
        injector = FaultInjector(parts, "test", threading.Event())
        has_beaten = threading.Event()
        injector.pulse(has_beaten.set, 0.01)
        assert has_beaten.wait(10)
        assert injector.undo() == []
        assert pulses("test") == []


def test_an_error_in_a_pulse_is_reported_by_the_undo(tmp_path: Path):
    with UndoLog() as undo_log:
        parts = Nowhere("nowhere", folder=tmp_path, compress=1.0, undo_log=undo_log)
        injector = FaultInjector(parts, "test", threading.Event())

        def beat() -> None:
            raise ZeroDivisionError

        injector.pulse(beat, 0.01)
        for pulse in pulses("test"):
            pulse.join(10)
        [fault] = injector.undo()
        assert "ZeroDivisionError" in fault


# --- the gate --------------------------------------------------------------------------------


class Prometheus:
    def __init__(self, *names: str) -> None:
        self._names = names

    def rules(self) -> list[Rule]:
        return [rule(name) for name in self._names]


class Quiet:
    def note(self, text: str) -> None:
        """Say nothing."""


def gated(*names: str, keep: Path | None = None) -> Runner:
    plan = DrillPlan(drills=[], compress=15, environments=1, together=1, is_all=True, keep=keep)
    run = RunResult("compressed", 15, 0.0, "test", {})
    runner = Runner(plan, run, Quiet(), registered())  # type: ignore[arg-type]
    environment: Any = type("Stage", (), {"prometheus": Prometheus(*names)})()
    runner._environments["environment-1"] = environment
    return runner


def test_a_rule_of_prometheus_without_a_drill_fails_the_run():
    runner = gated("HighErrorRate", "HasNoDrill")
    runner._gate()
    assert runner._run.uncovered == ["HasNoDrill"]
    assert not runner._run.is_passed
    covered = gated(*registered())
    covered._gate()
    assert covered._run.uncovered == []


def test_a_directory_in_use_is_not_worked_in(tmp_path: Path):
    (tmp_path / "environment-1").mkdir()
    with UndoLog() as undo_log, pytest.raises(ConfigError, match="empty directory"):
        gated(keep=tmp_path)._folder(undo_log)
