"""One link of the chain is removed at a time: the drill fails and names the link.

Each has an environment of its own, and all run at the same time: most of it is waiting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtest.drilling.drill import Drill
from loadtest.drilling.environment.cluster import Environment
from loadtest.drilling.result import DrillResult
from loadtest.drilling.undo import UndoLog
from loadtest.drills import registered
from tests.drilling.conftest import COMPRESS, run
from tests.harness.processes import hold

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DRILL: Drill = dataclasses.replace(registered()["HighDiskUsage"], below=None, is_acknowledged=False)


def change(environment: Environment, name: str, sabotage: Callable[[dict[str, Any]], None]) -> None:
    """Change a rendered file, and let its program read it."""
    path = environment.rendered(name)
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    sabotage(document)
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    environment.reload("alertmanager" if name == "alertmanager.yml" else "prometheus")


def nothing(environment: Environment) -> None:
    """Change nothing."""


def wrong_threshold(environment: Environment) -> None:
    def sabotage(document: dict[str, Any]) -> None:
        for group in document["groups"]:
            for rule in group["rules"]:
                if rule.get("alert") == "HighDiskUsage":
                    rule["expr"] = rule["expr"].replace("> 90", "> 99")

    change(environment, "alert_rules.yml", sabotage)


def rule_not_loaded(environment: Environment) -> None:
    def sabotage(document: dict[str, Any]) -> None:
        document["groups"] = [g for g in document["groups"] if g["name"] != "system_alerts"]

    change(environment, "alert_rules.yml", sabotage)


def metric_renamed(environment: Environment) -> None:
    def sabotage(document: dict[str, Any]) -> None:
        job = next(j for j in document["scrape_configs"] if j["job_name"] == "node")
        renamed = {"regex": "node_filesystem_avail_bytes", "replacement": "node_filesystem_room"}
        names = {"source_labels": ["__name__"], "target_label": "__name__"}
        job["metric_relabel_configs"] = [names | renamed]

    change(environment, "prometheus.yml", sabotage)


def route_removed(environment: Environment) -> None:
    def sabotage(document: dict[str, Any]) -> None:
        routes = document["route"]["routes"]
        kept = [route for route in routes if route["receiver"] != "infrastructure-team"]
        document["route"]["routes"] = kept

    change(environment, "alertmanager.yml", sabotage)


def route_too_many(environment: Environment) -> None:
    def sabotage(document: dict[str, Any]) -> None:
        routes = document["route"]["routes"]
        warning = next(route for route in routes if route["receiver"] == "websocket-team")
        unexpected = {**warning, "receiver": "websocket-oncall", "continue": True}
        routes.insert(routes.index(warning), unexpected)

    change(environment, "alertmanager.yml", sabotage)


def receiver_unreachable(environment: Environment) -> None:
    nowhere = environment.folder / "nowhere"
    nowhere.write_text("http://127.0.0.1:9/slack\n", encoding="utf-8")

    def sabotage(document: dict[str, Any]) -> None:
        document["global"]["slack_api_url_file"] = str(nowhere)

    change(environment, "alertmanager.yml", sabotage)


def alertmanager_hangs(environment: Environment) -> None:
    hold(environment.pid_of("alertmanager"))


SABOTAGES = (
    nothing,
    wrong_threshold,
    rule_not_loaded,
    metric_renamed,
    route_removed,
    route_too_many,
    receiver_unreachable,
    alertmanager_hangs,
)


def outcome_of(sabotage: Callable[[Environment], None], folder: Path) -> DrillResult:
    with UndoLog() as undo_log:
        environment = Environment(
            sabotage.__name__, folder=folder / "environment", compress=COMPRESS, undo_log=undo_log
        )
        try:
            environment.start()
            sabotage(environment)
            result = run(DRILL, environment)
            # However it went, nothing stays broken.
            assert (
                environment.disk.path is None or not (environment.disk.path / "memory_hog").exists()
            )
            return result
        finally:
            environment.close()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, DrillResult]]:
    with ThreadPoolExecutor(len(SABOTAGES)) as pool:
        futures = {
            sabotage.__name__: pool.submit(
                outcome_of, sabotage, tmp_path_factory.mktemp(sabotage.__name__)
            )
            for sabotage in SABOTAGES
        }
        yield {name: future.result() for name, future in futures.items()}


def test_a_whole_chain_is_proven(results: Mapping[str, DrillResult]):
    result = results["nothing"]
    assert result.result in ("passed", "simulated"), result.why
    assert {str(one) for one in result.notified} == {
        "slack #infrastructure-alerts",
        "slack #websocket-alerts",
    }
    steps = ["provoked", "pending", "firing", "alertmanager", "undone", "resolved"]
    assert sorted(steps, key=result.step_times.__getitem__) == steps


@pytest.mark.parametrize(
    ("sabotage", "step", "says"),
    [
        (wrong_threshold, "firing", ["rule: its expression is not the project's", "> 99"]),
        (rule_not_loaded, "baseline", ["rule file", "none is called HighDiskUsage"]),
        (metric_renamed, "firing", ["metric: Prometheus has no node_filesystem_avail_bytes"]),
        (
            route_removed,
            "notified",
            ["route: nothing arrived at slack #infrastructure-alerts", "websocket-team"],
        ),
        (route_too_many, "notified", ["route: pagerduty trigger, slack", "notified, too"]),
        (receiver_unreachable, "notified", ["nothing arrived at slack #websocket-alerts"]),
        (alertmanager_hangs, "baseline", ["Alertmanager"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_the_broken_link_is_named(
    results: Mapping[str, DrillResult],
    sabotage: Callable[[Environment], None],
    step: str,
    says: list[str],
):
    result = results[sabotage.__name__]
    assert result.result == "failed"
    assert result.failed_at == step, result.why
    assert [words for words in says if words not in result.why] == [], result.why
