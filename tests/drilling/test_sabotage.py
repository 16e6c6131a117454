"""One link of the chain is taken away at a time: the drill fails, and says which link it is.

One stage serves all: each test changes a rendered file, lets the program read it, and puts it back.
"""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from loadtest.drill import Drill
from loadtest.drilling.outcome import Outcome
from loadtest.drilling.stage import Stage
from loadtest.drills import registered
from tests.drilling.conftest import run, text_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

DRILL: Drill = dataclasses.replace(registered()["HighDiskUsage"], below=None, is_acknowledged=False)


@contextmanager
def changed(stage: Stage, name: str, change: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """A rendered file with a change that its program has read; afterwards as it was."""
    path = stage.rendered(name)
    before = text_of(path)
    document = yaml.safe_load(before)
    change(document)
    part = "alertmanager" if name == "alertmanager.yml" else "prometheus"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    stage.reload(part)
    try:
        yield
    finally:
        path.write_text(before, encoding="utf-8")
        stage.reload(part)


def rule_of(document: dict[str, Any], alert: str) -> dict[str, Any]:
    return next(
        rule
        for group in document["groups"]
        for rule in group["rules"]
        if rule.get("alert") == alert
    )


def assert_broken(outcome: Outcome, step: str, *says: str) -> None:
    assert outcome.result == "failed", outcome
    assert outcome.failed_at == step, outcome.why
    for words in says:
        assert words in outcome.why


def test_the_whole_chain_is_well(stage: Stage):
    outcome = run(DRILL, stage)
    assert outcome.result in ("passed", "simulated"), outcome.why
    assert {str(one) for one in outcome.notified} == {
        "slack #infrastructure-alerts",
        "slack #websocket-alerts",
    }
    steps = ["provoked", "pending", "firing", "alertmanager", "mended", "resolved"]
    assert sorted(steps, key=outcome.moments.__getitem__) == steps


def test_a_wrong_threshold_is_named(stage: Stage):
    def sabotage(document: dict[str, Any]) -> None:
        rule = rule_of(document, "HighDiskUsage")
        rule["expr"] = rule["expr"].replace("> 90", "> 99")

    with changed(stage, "alert_rules.yml", sabotage):
        outcome = run(DRILL, stage)
    assert_broken(outcome, "firing", "rule: its expression is not the project's", "> 99")


def test_a_rule_that_is_not_loaded_is_named(stage: Stage):
    def sabotage(document: dict[str, Any]) -> None:
        document["groups"] = [g for g in document["groups"] if g["name"] != "system_alerts"]

    with changed(stage, "alert_rules.yml", sabotage):
        outcome = run(DRILL, stage)
    assert_broken(outcome, "baseline", "rule file", "none is called HighDiskUsage")


def test_a_metric_that_was_renamed_is_named(stage: Stage):
    def sabotage(document: dict[str, Any]) -> None:
        job = next(j for j in document["scrape_configs"] if j["job_name"] == "node")
        job["metric_relabel_configs"] = [
            {
                "source_labels": ["__name__"],
                "regex": "node_filesystem_avail_bytes",
                "target_label": "__name__",
                "replacement": "node_filesystem_free_space",
            }
        ]

    with changed(stage, "prometheus.yml", sabotage):
        outcome = run(DRILL, stage)
    assert_broken(outcome, "firing", "metric: Prometheus has no node_filesystem_avail_bytes")


def test_a_route_that_was_removed_is_named(stage: Stage):
    def sabotage(document: dict[str, Any]) -> None:
        routes = document["route"]["routes"]
        document["route"]["routes"] = [
            route for route in routes if route["receiver"] != "infrastructure-team"
        ]

    with changed(stage, "alertmanager.yml", sabotage):
        outcome = run(DRILL, stage)
    assert_broken(
        outcome,
        "notified",
        "route: nothing arrived at slack #infrastructure-alerts",
        "websocket-team",
    )


def test_a_receiver_that_cannot_be_reached_is_named(stage: Stage):
    def sabotage(document: dict[str, Any]) -> None:
        document["global"]["slack_api_url_file"] = str(stage.folder / "nowhere")

    (stage.folder / "nowhere").write_text("http://127.0.0.1:9/slack\n", encoding="utf-8")
    with changed(stage, "alertmanager.yml", sabotage):
        outcome = run(DRILL, stage)
    assert_broken(outcome, "notified", "nothing arrived at slack #websocket-alerts")


def test_an_alertmanager_that_hangs_is_named(stage: Stage):
    pid = stage.part("alertmanager")
    os.kill(pid, signal.SIGSTOP)
    try:
        outcome = run(DRILL, stage, slack_seconds=4.0)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert_broken(outcome, "baseline", "Alertmanager")
