"""What panels and annotations show of a cluster that is known: computed by promtool."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.dashboards.pages import PAGES
from scripts.dashboards.panels import Page, document
from tests.rules.panel_queries import assert_answers, panel
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
