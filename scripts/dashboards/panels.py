"""Panels and dashboards as data, and the JSON that Grafana reads, made with its own SDK.

Rules
- Each panel has a description, a unit and an id that is made of its name, so that links stay right.
- `panel:<name>` in the description is how an alert finds its panel (docker/square.yml).
- Queries use the variables `job` and `instance`, and no other data source than Prometheus.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueGraphMode, GraphThresholdsStyleMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    GridPos,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)

TAG: Final = "ws-cluster"
HEIGHT: Final = 8
WIDTH: Final = 24
_SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${source}")


class Query(NamedTuple):
    """One query; `legend` has labels in braces, as `{{instance}}`."""

    expr: str
    legend: str = ""


class Panel(NamedTuple):
    """One panel.

    Attributes:
        name: its stable name, which alerts use.
        unit: of Grafana, such as `short`, `percentunit`, `bytes`, `s`, `reqps`.
        kind: "graph", "number" or "bars".
        width: of 24.
        limits: values from which on it is shown in yellow, and in red.
        text: what it shows, and what to do with it.
        job: the job of an exporter that only the containers have, if its queries need it.
    """

    name: str
    title: str
    text: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "graph"
    width: int = 12
    limits: tuple[float, ...] = ()
    job: str = ""


class Variable(NamedTuple):
    """A number that the reader types in."""

    name: str
    label: str
    value: str


class Page(NamedTuple):
    """One dashboard: rows of panels, each with its title."""

    uid: str
    title: str
    text: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    variables: tuple[Variable, ...] = ()

    @property
    def panels(self) -> list[Panel]:
        return [panel for _, panels in self.rows for panel in panels]


def panel_id(name: str) -> int:
    """The id of a panel: the same in every version of its dashboard."""
    return zlib.crc32(name.encode()) % 1_000_000 + 1


def _colours(limits: Sequence[float]) -> Any:
    colours = ("red",) if len(limits) == 1 else ("yellow", "red")
    steps = [Threshold(value=None, color="green")]
    steps += [Threshold(value=value, color=colours[at]) for at, value in enumerate(limits)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _builder(panel: Panel) -> Any:
    newest = common.ReduceDataOptions().calcs(["lastNotNull"])
    if panel.kind == "number":
        return stat.Panel().reduce_options(newest).graph_mode(BigValueGraphMode.AREA)
    if panel.kind == "bars":
        return bargauge.Panel().reduce_options(newest)
    style = GraphThresholdsStyleMode.LINE if panel.limits else GraphThresholdsStyleMode.OFF
    return (
        timeseries.Panel()
        .fill_opacity(10)
        .line_width(1)
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(style))
    )


def _panel(panel: Panel, place: GridPos) -> Any:
    made = _builder(panel).id(panel_id(panel.name)).title(panel.title).unit(panel.unit)
    made.grid_pos(place).datasource(_SOURCE).min(0).thresholds(_colours(panel.limits))
    made.description(f"{panel.text} (panel:{panel.name})")
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        target = prometheus.Dataquery().expr(query.expr).ref_id(letter).datasource(_SOURCE)
        target.legend_format(query.legend or "__auto")
        if panel.kind == "bars":
            target.instant()
        made.with_target(target)
    return made


def _places(panels: Sequence[Panel], top: int) -> tuple[list[GridPos], int]:
    """Where the panels of a row stand; and where the next row begins."""
    places, x, y = [], 0, top
    for panel in panels:
        if x + panel.width > WIDTH:
            x, y = 0, y + HEIGHT
        places.append(GridPos(h=HEIGHT, w=panel.width, x=x, y=y))
        x += panel.width
    return places, y + HEIGHT


def _label_variable(name: str, query: str, *, is_multi: bool) -> Any:
    made = dashboard.QueryVariable(name).label(name).query(query).datasource(_SOURCE)
    made.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    return made.multi(True).include_all(True).all_value(".*") if is_multi else made


def _annotation(name: str, expr: str, colour: str) -> Any:
    made = dashboard.AnnotationQuery().name(name).datasource(_SOURCE).enable(True)
    return made.expr(expr).icon_color(colour)


def document(page: Page) -> str:
    """The JSON of a dashboard."""
    made = (
        dashboard.Dashboard(page.title)
        .uid(page.uid)
        .description(page.text)
        .tags([TAG])
        .readonly()
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("browser")
        .with_variable(dashboard.DatasourceVariable("source").label("source").type("prometheus"))
        .with_variable(
            _label_variable("job", "label_values(app_workers_alive, job)", is_multi=False)
        )
        .with_variable(
            _label_variable(
                "instance", 'label_values(app_workers_alive{job="$job"}, instance)', is_multi=True
            )
        )
        .link(
            dashboard.DashboardLink("other dashboards")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .keep_time(True)
        )
        .annotation(
            _annotation("alerts", 'ALERTS{alertstate="firing",severity=~"critical|warning"}', "red")
        )
        .annotation(
            _annotation(
                "deployments",
                'changes(app_deployment_timestamp_seconds{job="$job"}[1m]) > 0',
                "blue",
            )
        )
    )
    for variable in page.variables:
        made.with_variable(
            dashboard.TextBoxVariable(variable.name)
            .label(variable.label)
            .default_value(variable.value)
        )
    top = 0
    for title, panels in page.rows:
        made.with_row(
            dashboard.Row(title).id(panel_id(f"row {title}")).grid_pos(GridPos(1, WIDTH, 0, top))
        )
        places, top = _places(panels, top + 1)
        for panel, place in zip(panels, places, strict=True):
            made.with_panel(_panel(panel, place))
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"
