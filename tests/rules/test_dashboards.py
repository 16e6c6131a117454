"""What can be said of the dashboards without a Prometheus: they are written, complete and drawn in place."""

from __future__ import annotations

import json
import re
import urllib.parse
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts.dashboards.__main__ import FOLDER
from scripts.dashboards.alerting import ALERTS
from scripts.dashboards.log_lines import LOGS
from scripts.dashboards.pages import PAGES
from scripts.dashboards.panels import WIDTH, Page, Panel, document, panel_id
from tests.architecture.tree import ROOT
from tests.drawing.digests import digest, picture_of
from tests.rules.test_logging import LABELS
from tests.rules.test_square import SQUARE

DATA_SOURCES = FOLDER.parent / "provisioning" / "datasources"

every_page = pytest.mark.parametrize("page", PAGES, ids=[page.uid for page in PAGES])
PANELS = [(page, panel) for page in PAGES for panel in page.panels]
every_panel = pytest.mark.parametrize(
    ("page", "panel"), PANELS, ids=[f"{page.uid}/{panel.name}" for page, panel in PANELS]
)
UNITS = {"short", "percentunit", "bytes", "s", "reqps", "cps", "ops", "rps", "mps", "cpm"}
#: What Grafana puts in, beside the variables of the page.
BUILT_IN = {"__rate_interval", "__range", "__auto", "__data", "__value"}


def written(page: Page) -> dict[str, Any]:
    document_: dict[str, Any] = json.loads((FOLDER / f"{page.uid}.json").read_text())
    return document_


def test_the_files_are_those_that_make_dashboards_writes():
    assert {path.name for path in FOLDER.iterdir()} == {f"{page.uid}.json" for page in PAGES}
    for page in PAGES:
        assert (FOLDER / f"{page.uid}.json").read_text() == document(page), "run `make dashboards`"


@every_page
def test_nothing_in_it_is_unknown_to_the_schema_of_grafana(page: Page):
    """What the models of Grafana's schema do not know is lost on the way through them."""
    read = Dashboard.from_json(written(page))
    assert json.loads(JSONEncoder(sort_keys=True).encode(read)) == written(page)


#: A page of log lines is drawn only where a Loki can be started, so its picture may be older.
drawn_everywhere = pytest.mark.parametrize(
    "page",
    [page for page in PAGES if not any(panel.is_of_logs for panel in page.panels)],
    ids=lambda page: page.uid,
)


@drawn_everywhere
def test_its_picture_is_of_the_dashboard_as_it_is(page: Page):
    drawn_as = ROOT / "docs" / "img" / f"{picture_of(page.uid)}.sha256"
    assert drawn_as.is_file(), "run `make dashboards-drawn`"
    assert drawn_as.read_text() == digest(written(page)), "run `make dashboards-drawn`"


@every_page
def test_panels_have_ids_of_their_own_and_do_not_overlap(page: Page):
    panels = written(page)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < WIDTH, panel["title"]
        taken |= cells


@every_page
def test_the_variables_that_queries_use_are_declared(page: Page):
    document_ = written(page)
    declared = {one["name"] for one in document_["templating"]["list"]} | BUILT_IN
    text = json.dumps([document_["panels"], document_["annotations"]])
    assert set(re.findall(r"\$\{?([a-z_]\w*)", text)) <= declared


@every_page
def test_job_and_instance_can_be_chosen_where_queries_use_them(page: Page):
    document_ = written(page)
    variables = [one["name"] for one in document_["templating"]["list"]]
    assert variables[0] == "source"
    asked = " ".join(query.expr for panel in page.panels for query in panel.queries)
    for name in ("job", "instance"):
        assert (name in variables) == (
            f"${name}" in asked or (name == "job" and "instance" in variables)
        )


@every_page
def test_alerts_and_deployments_are_marked(page: Page):
    document_ = written(page)
    assert [one["name"] for one in document_["annotations"]["list"]] == ["alerts", "deployments"]
    assert all(one["enable"] for one in document_["annotations"]["list"])


@every_panel
def test_what_is_counted_per_minute_says_so_in_its_unit(page: Page, panel: Panel):
    is_per_minute = any(re.search(r"\b60 \* |\) \* 60\b", one.expr) for one in panel.queries)
    assert (panel.unit == "cpm") == is_per_minute


def test_what_is_shown_of_each_worker_can_be_shown_of_one():
    [page] = [one for one in PAGES if one.chooses_worker]
    [variable] = [one for one in written(page)["templating"]["list"] if one["name"] == "worker"]
    assert variable["includeAll"]
    assert variable["multi"]
    assert variable["query"] == (
        'label_values(app_worker_connections{job="$job",instance=~"$instance"}, worker)'
    )
    for other, panel in PANELS:
        for query in panel.queries:
            is_of_each = "{{worker}}" in query.legend
            assert ('worker=~"$worker"' in query.expr) == is_of_each, panel.name
            assert other is page or not is_of_each, panel.name


@every_panel
def test_a_panel_has_a_title_a_text_and_a_unit(page: Page, panel: Panel):
    assert panel.title
    assert panel.text.endswith(".")
    assert panel.unit in UNITS
    assert panel.queries
    [shown] = [one for one in written(page)["panels"] if one["id"] == panel_id(panel.name)]
    assert shown["fieldConfig"]["defaults"]["unit"] == panel.unit
    assert [target["expr"] for target in shown["targets"]] == [q.expr for q in panel.queries]
    assert len(panel.limits) <= 2


@pytest.mark.parametrize("alert", sorted(SQUARE["alerts"]))
def test_the_panel_of_an_alert_says_so(alert: str):
    wanted = SQUARE["alerts"][alert]["panel"]
    [panel] = {panel for _, panel in PANELS if panel.name == wanted}
    assert re.search(rf"\b{alert}\b", panel.text)


# What shows how much is done has no threshold: much is no fault, and little is one on another panel.
AN_AMOUNT = "an amount of work"
A_TEXT = "rows or lines of text, without a value that could be coloured"
NO_THRESHOLD = {
    "alerts-active": A_TEXT,
    "alerts-history": "several alerts in one bar; each is one too many",
    "api-requests": AN_AMOUNT,
    "handler-calls": AN_AMOUNT,
    "replicas-needed": "an answer to what is typed in, beside the number of those that run",
    "replicas-by-resource": "an answer to what is typed in",
    "memory-for-connections": "an answer to what is typed in",
    "memory-per-connection": "what was measured is a line of its own",
    "cpu-per-message": "it depends on what the messages are",
    "load-users": AN_AMOUNT,
    "load-traffic": AN_AMOUNT,
    "load-requests": AN_AMOUNT,
    "load-connections": AN_AMOUNT,
    "drills-passed": "the number of those planned is beside it; `drills-failed` has the threshold",
    "drill-steps": A_TEXT,
    "log-lines": AN_AMOUNT,
    "log-events": "a rank; `log-errors` has the threshold",
    "log-errors-around": A_TEXT,
    "log-all": A_TEXT,
    "log-others": A_TEXT,
    "worker-exits": "clean ends beside others; `worker-restarts` has the threshold",
    "shutdown-histogram": "a number for each time; `shutdown-time` has the threshold",
    "startup-histogram": "a number for each time; `startup-time` has the threshold",
    "publications": AN_AMOUNT,
    "recoveries": AN_AMOUNT,
    "stream-reads": AN_AMOUNT,
    "redis-memory": "its limit is a line of its own",
    "redis-commands": "it depends on the machine; `redis-cpu` has the threshold",
    "redis-evictions": "evicted keys beside those that expire, which is no fault",
    "redis-clients": "clients beside those refused; maxclients is the operator's",
    "nginx-connections": AN_AMOUNT,
    "nginx-requests": AN_AMOUNT,
    "worker-memory": "the limit is the replica's; `memory` has the threshold",
    "worker-connections": "the mean is a line of its own; `balance` has the threshold",
    "connections-shed": AN_AMOUNT,
}


def test_a_panel_has_a_threshold_or_a_reason_for_having_none():
    without = {panel.name for _, panel in PANELS if not (panel.limits or panel.floors)}
    assert without == set(NO_THRESHOLD) | set(NO_LINE)


# Panels of alerts whose threshold is in another unit than what they show.
NO_LINE = {
    "deployments": "a deployment is an event",
    "notifications": "a share of the notifications, which are shown in numbers",
    "connection-headroom": "a share of the ceiling, which is a line of its own",
    "metrics-collection": "any file put aside, beside the number of all files",
}


@pytest.mark.parametrize(
    "name", sorted({one["panel"] for one in SQUARE["alerts"].values()} - set(NO_LINE))
)
def test_the_panel_of_an_alert_draws_a_threshold(name: str):
    [panel] = {panel for _, panel in PANELS if panel.name == name}
    assert panel.limits or panel.floors
    # The first of the pages that have it.
    page = next(page for page, one in PANELS if one.name == name)
    [shown] = [one for one in written(page)["panels"] if one["id"] == panel_id(name)]
    steps = shown["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [step["color"] for step in steps] in (
        ["green", "red"],
        ["green", "yellow", "red"],
        ["red", "text"],
        ["red", "yellow", "green"],
    )


def drawn(page: Page, panel: Panel) -> dict[str, Any]:
    """A panel as it is written."""
    [found] = [one for one in written(page)["panels"] if one["id"] == panel_id(panel.name)]
    return dict(found)


def overridden(page: Page, panel: Panel, wanted: str) -> dict[str, Any]:
    """What is set for a field of its own, by the name of the field."""
    return {
        override["matcher"]["options"]: given["value"]
        for override in drawn(page, panel)["fieldConfig"]["overrides"]
        for given in override["properties"]
        if given["id"] == wanted
    }


@every_panel
def test_a_bar_has_the_colour_of_its_value_alone(page: Page, panel: Panel):
    if panel.kind in {"bars", "histogram"}:
        # A gradient begins with the colours of values that are better.
        assert drawn(page, panel)["options"]["displayMode"] == "basic"


@every_panel
def test_a_number_with_its_name_is_of_now(page: Page, panel: Panel):
    """Over a time it would have a number for each name that there has been."""
    if panel.kind == "named number":
        shown = drawn(page, panel)
        assert len(shown["targets"]) == 1
        assert all(target["instant"] for target in shown["targets"])
        assert shown["options"]["textMode"] == "value_and_name"
        assert shown["options"]["graphMode"] == "none"


# What is worse has the colour of what is worse, whatever its place in the list is.
BY_LABEL = {
    "level": {"warning": "yellow", "error": "red", "critical": "dark-red"},
    "outcome": {"killed": "orange", "crashed": "red"},
}


@every_panel
def test_series_of_levels_and_faults_have_fixed_colours(page: Page, panel: Panel):
    if panel.kind not in {"graph", "stack"}:
        return
    colours = overridden(page, panel, "color")
    for query in panel.queries:
        wanted = BY_LABEL.get(query.legend.strip("{}"), {})
        if "app_load_ledger_faults" in query.expr:
            wanted = {"lost": "red"}
        for name, colour in wanted.items():
            assert colours[name] == {"mode": "fixed", "fixedColor": colour}


@every_panel
def test_the_line_of_a_floor_has_no_colour_of_a_series(page: Page, panel: Panel):
    if panel.kind == "graph" and panel.floors:
        steps = drawn(page, panel)["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert [step["color"] for step in steps] == ["red", "text"]


@pytest.mark.parametrize("name", ["time-to-acknowledge", "time-to-resolve"])
def test_times_to_answer_are_shares_of_their_targets(name: str):
    [panel] = {panel for _, panel in PANELS if panel.name == name}
    assert panel.unit == "percentunit"
    assert list(panel.limits) == [0.8, 1]
    for query in panel.queries:
        assert "/ on (severity) max by (severity) (app_incident_target_seconds)" in query.expr


@every_panel
def test_the_axis_of_a_graph_reaches_its_thresholds(page: Page, panel: Panel):
    if panel.kind not in {"graph", "stack"}:
        return
    shown = drawn(page, panel)["fieldConfig"]["defaults"]["custom"]["axisSoftMax"]
    highest = max(panel.limits + panel.floors, default=0)
    # 0 alone would be drawn on an axis that ends at 100.
    assert shown > 0
    assert shown > highest or (panel.unit == "percentunit" and shown == 1 >= highest)


@every_panel
def test_the_thresholds_of_a_table_colour_its_cells(page: Page, panel: Panel):
    if panel.kind == "table":
        assert bool(overridden(page, panel, "custom.cellOptions")) == bool(panel.limits)


def links_of_alerts() -> list[str]:
    """The addresses to which the names of alerts lead."""
    [table] = [one for one in written(ALERTS)["panels"] if one["id"] == panel_id("alerts-active")]
    return [
        link["url"]
        for override in table["fieldConfig"]["overrides"]
        for given in override["properties"]
        if given["id"] == "links"
        for link in given["value"]
    ]


def test_an_alert_leads_to_the_log_lines_around_it_and_to_its_runbook():
    logs, explore, runbook = links_of_alerts()
    assert logs.startswith(f"/d/{LOGS.uid}?from=")
    assert runbook == "${runbooks}/${__value.raw}"
    address = urllib.parse.urlsplit(explore)
    [panes] = urllib.parse.parse_qs(address.query)["panes"]
    [pane] = json.loads(panes).values()
    provisioned = yaml.safe_load((DATA_SOURCES / "loki.yml").read_text())["datasources"][0]
    assert pane["datasource"] == provisioned["uid"]
    assert pane["queries"][0]["datasource"] == {"type": "loki", "uid": provisioned["uid"]}
    assert pane["queries"][0]["expr"] == '{service="app"}'
    # The columns of the times, by the names that the table gives them.
    titles = {column.title for panel in ALERTS.panels for column in panel.columns}
    for moment in ("from", "to"):
        assert pane["range"][moment] == f"${{__data.fields.{moment}.numeric}}"
        assert f"{moment}=${{__data.fields.{moment}.numeric}}" in logs
        assert moment in titles


@every_panel
def test_queries_name_the_labels_that_log_lines_have(page: Page, panel: Panel):
    if panel.is_of_logs:
        for query in panel.queries:
            [selector] = re.findall(r"\{(.*?)\}", query.expr)
            assert set(re.findall(r"(\w+)[!=]", selector)) <= LABELS
