"""What panels and annotations show of a cluster that is known: computed by promtool."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.metrics.catalogue import FAMILIES
from loadtest.families import DRILL_FAMILIES, LOAD_FAMILIES
from scripts.dashboards.pages import PAGES
from scripts.dashboards.panels import Page, document
from tests.rules import promtool
from tests.rules.panel_queries import (
    CAPACITY,
    assert_answers,
    grouping_labels_of,
    metrics_of,
    panel,
)
from tests.rules.timeline import Series, app, gone, hold, moment

every_page = pytest.mark.parametrize("page", PAGES, ids=[page.uid for page in PAGES])


def annotation(page: Page, name: str) -> str:
    """The query of an annotation."""
    annotations = json.loads(document(page))["annotations"]["list"]
    [expr] = [str(one["expr"]) for one in annotations if one["name"] == name]
    return expr


@every_page
def test_a_deployment_is_marked_when_a_replica_replaces_another(page: Page, tmp_path: Path):
    deployed = "app_deployment_timestamp_seconds"
    series = [
        app(deployed, moment("0s", "10m"), gone("20m"), instance="old", version="1"),
        app(deployed, gone("10m"), moment("10m", "20m"), instance="new", version="2"),
    ]
    expr = annotation(page, "deployments")
    assert_answers(
        tmp_path,
        series,
        [
            (expr, "9m", {}),
            (expr, "10m30s", {'{version="2"}': 30}),
            # Grafana asks once a minute, and the first scrape may be as late as 15 seconds.
            (expr, "11m15s", {'{version="2"}': 75}),
            (expr, "12m", {}),
            (expr, "25m", {}),
        ],
    )


QUERIES = [
    pytest.param(query.expr, id=f"{page.uid}/{one.name}/{number}")
    for page in PAGES
    for one in page.panels
    if not one.is_of_logs
    for number, query in enumerate(one.queries)
]
every_query = pytest.mark.parametrize("expr", QUERIES)
LABELS = {f.name: dict(f.labels) for f in (*FAMILIES, *LOAD_FAMILIES, *DRILL_FAMILIES)}
for family in (*FAMILIES, *LOAD_FAMILIES):
    if family.kind == "histogram":
        LABELS[f"{family.name}_bucket"] = {**family.labels, "le": ()}
        LABELS[f"{family.name}_count"] = dict(family.labels)
for rule_name, rule in promtool.recordings(CAPACITY).items():
    LABELS[rule_name] = {**LABELS.get(rule_name, {}), **dict.fromkeys(rule.get("labels", {}), ())}
OF_TARGETS = {"job", "instance"}


@pytest.mark.parametrize(
    ("expr", "names"),
    [
        ('count(ALERTS{alertstate="pending"}) or vector(0)', {"ALERTS"}),
        (
            "60 * sum by (rule_group) (rate(prometheus_rule_evaluation_failurez_total[5m])) > 1e-9",
            {"prometheus_rule_evaluation_failurez_total"},
        ),
        (
            'label_replace(a_total, "group", "$1", "b_total", "(?:.*;)?(.*)") and on (c) max by (d) (e:f:g)',
            {"a_total", "e:f:g"},
        ),
        ("ceil($connections / (h * $workers)) + 1", {"h"}),
    ],
)
def test_the_metrics_of_a_query_are_found(expr: str, names: set[str]):
    assert metrics_of(expr) == names


@every_query
def test_what_a_query_reads_of_the_application_exists(expr: str):
    names = metrics_of(expr)
    assert names
    own = {name for name in names if name.startswith("app_")}
    assert own - set(LABELS) == set()
    assert {name for name in names if ":" in name} <= set(promtool.recordings())
    for metric, label, value in promtool.matched_labels_of(expr):
        if label not in OF_TARGETS and "$" not in value:
            known = LABELS[metric][label]
            assert value in known or metric in promtool.recordings(CAPACITY), (
                f"{metric} {label}={value}"
            )
    if own == names:
        labels = {label for name in own for label in LABELS[name]} | OF_TARGETS
        assert grouping_labels_of(expr) - labels == set()


def replicas(*connections: int, fit: int = 100) -> list[Series]:
    return [
        one
        for number, open_now in enumerate(connections)
        for one in (
            app("app_active_connections", hold(open_now, "10m"), instance=f"r{number}"),
            app("app_connection_capacity", hold(fit, "10m"), instance=f"r{number}"),
        )
    ]


@pytest.mark.parametrize(
    ("connections", "share"),
    [
        ((50, 50), 1.0),
        ((30, 30, 30), 0.45),
        # What is lost with the only replica has no other place.
        ((90,), 10.0),
        ((0,), 10.0),
    ],
)
def test_what_is_lost_with_a_replica_is_shared_by_the_others(
    connections: tuple[int, ...], share: float, tmp_path: Path
):
    shown = panel("after-a-loss")
    [query] = shown.queries
    assert "$instance" not in query.expr
    assert_answers(tmp_path, replicas(*connections), [(query.expr, "9m", {"{}": share})])
    [(value, _)] = shown.texts
    assert value == 10
