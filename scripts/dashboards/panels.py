"""Panels and dashboards as data, and the JSON that Grafana reads, made with its own SDK.

Rules
- Each panel has a description, a unit and an id that is made of its name, so that links stay right.
- `panel:<name>` in the description is how an alert finds its panel (docker/square.yml).
- Queries of the application use the variables `job` and `instance`; a page without such queries has neither.
- Prometheus is asked, and Loki on the page of logs only.
- What a kind of panel would get from its plugin's defaults and matters is written: colours of series, for example.
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
    logs,
    loki,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphDrawStyle,
    GraphThresholdsStyleMode,
    LogsSortOrder,
    StackingMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    GridPos,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

TAG: Final = "ws-cluster"
HEIGHT: Final = 8
WIDTH: Final = 24
_SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${source}")
_LOGS: Final = DataSourceRef(type_val="loki", uid="${logs}")
#: Kinds that show one moment, and not a range of time.
_OF_NOW: Final = ("bars", "histogram", "named number", "table")
_MOST_LINES: Final = 500
_HALF: Final = 0.5


class Query(NamedTuple):
    """One query.

    Attributes:
        legend: has labels in braces, as `{{instance}}`.
        job: the job of an exporter that only the containers have, if it needs one and the panel's others do not.
    """

    expr: str
    legend: str = ""
    job: str = ""


class Link(NamedTuple):
    """Where a value of a table leads; the address may use `${__data.fields.<title>.numeric}`."""

    title: str
    url: str


class Column(NamedTuple):
    """One column of a table.

    Attributes:
        field: a label, or `Value #A` for the values of the first query.
        is_hidden: it is there for the links of others.
        is_coloured: its values have the colours of the panel's limits.
    """

    field: str
    title: str
    unit: str = ""
    width: int = 0
    is_hidden: bool = False
    links: tuple[Link, ...] = ()
    is_coloured: bool = False


class Panel(NamedTuple):
    """One panel.

    Attributes:
        name: its stable name, which alerts use.
        unit: of Grafana, such as `short`, `percentunit`, `bytes`, `s`, `reqps`.
        kind: "graph", "stack" (bars on each other), "number", "named number" (one series of now, with its name), "bars",
            "histogram", "table" or "logs".
        width: of 24.
        limits: values from which on it is shown in yellow, and in red; one alone is red.
        floors: values below which it is shown in red, and in yellow; one alone is red.
        text: what it shows, and what to do with it.
        job: the job of an exporter that only the containers have, if its queries need it.
        is_of_logs: whether its queries are Loki's.
        columns: of a table; other labels are left out.
        height: of a row of panels.
        texts: values that are shown as a text.
        colours: of series, by their names; the others have those of the palette.
        most: the value of a full bar; 0 is 1 for shares, and else the largest.
    """

    name: str
    title: str
    text: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "graph"
    width: int = 12
    limits: tuple[float, ...] = ()
    floors: tuple[float, ...] = ()
    job: str = ""
    is_of_logs: bool = False
    columns: tuple[Column, ...] = ()
    height: int = HEIGHT
    texts: tuple[tuple[float, str], ...] = ()
    colours: tuple[tuple[str, str], ...] = ()
    most: float = 0


class Variable(NamedTuple):
    """What the reader types in; or one of the choices, each a text and its value, the first from the start."""

    name: str
    label: str
    value: str
    choices: tuple[tuple[str, str], ...] = ()


class Page(NamedTuple):
    """One dashboard: rows of panels, each with its title.

    Args:
        chooses_worker: the reader may choose workers, too, for what is shown of each.
    """

    uid: str
    title: str
    text: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    variables: tuple[Variable, ...] = ()
    chooses_worker: bool = False

    @property
    def panels(self) -> list[Panel]:
        return [panel for _, panels in self.rows for panel in panels]

    @property
    def chooses_job(self) -> bool:
        """Whether the reader may choose job and instance: if a query uses them."""
        return any("$job" in query.expr for panel in self.panels for query in panel.queries)


# A replica that is replaced is a series that ends and another that begins: no value changes. Grafana asks once a minute,
# and a target is scraped every 15 seconds, so a shorter time could fall between two questions.
_DEPLOYED: Final = "time() - max by (version) (app_deployment_timestamp_seconds{}) < 90"
_JOBS: Final = "label_values(app_workers_alive, job)"
_INSTANCES: Final = 'label_values(app_workers_alive{job="$job"}, instance)'
_WORKERS: Final = 'label_values(app_worker_connections{job="$job",instance=~"$instance"}, worker)'


def panel_id(name: str) -> int:
    """The id of a panel: the same in every version of its dashboard."""
    return zlib.crc32(name.encode()) % 1_000_000 + 1


def _colours(panel: Panel) -> Any:
    values: tuple[float, ...] = panel.limits
    colours = ["green", "red"] if len(values) == 1 else ["green", "yellow", "red"]
    if panel.floors:
        values = panel.floors
        # The line has the colour of what is above it, and green is the palette's first series.
        good = "text" if panel.kind == "graph" else "green"
        colours = ["red", good] if len(values) == 1 else ["red", "yellow", good]
    steps = [
        Threshold(value=value, color=colour)
        for value, colour in zip((None, *values), colours, strict=False)
    ]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _builder(panel: Panel) -> Any:
    newest = common.ReduceDataOptions().calcs(["lastNotNull"])
    if panel.kind == "number":
        return stat.Panel().reduce_options(newest).graph_mode(BigValueGraphMode.AREA).min(0)
    if panel.kind == "named number":
        named = stat.Panel().reduce_options(newest).graph_mode(BigValueGraphMode.NONE).min(0)
        return named.text_mode(BigValueTextMode.VALUE_AND_NAME)
    if panel.kind in {"bars", "histogram"}:
        bars = bargauge.Panel().reduce_options(newest).min(0)
        # A gradient begins with the colours of values that are better.
        bars.display_mode(BarGaugeDisplayMode.BASIC)
        if most := panel.most or (1 if panel.unit == "percentunit" else 0):
            # Else the longest bar is always a full one.
            bars.max(most)
        return bars.orientation(VizOrientation.HORIZONTAL)
    if panel.kind == "table":
        return _table(panel)
    if panel.kind == "logs":
        lines = logs.Panel().show_time(True).wrap_log_message(True).enable_log_details(True)
        return lines.sort_order(LogsSortOrder.DESCENDING)
    has_line = panel.limits or panel.floors
    style = GraphThresholdsStyleMode.LINE if has_line else GraphThresholdsStyleMode.OFF
    graph = (
        timeseries.Panel()
        .fill_opacity(10)
        .line_width(1)
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(style))
        .axis_soft_max(_axis_reaches(panel))
        .min(0)
    )
    for name, colour in panel.colours:
        fixed = {"mode": "fixed", "fixedColor": colour}
        graph.override_by_name(name, [DynamicConfigValue("color", fixed)])
    if panel.kind == "stack":
        stacked = common.StackingConfig().mode(StackingMode.NORMAL).group("A")
        graph.draw_style(GraphDrawStyle.BARS).fill_opacity(80).stacking(stacked)
    return graph


def _axis_reaches(panel: Panel) -> float:
    """Where the axis of a graph ends at least: a line beyond the data would not be drawn, and 0 alone is drawn up to 100."""
    highest = max(panel.limits + panel.floors, default=0.0)
    if panel.unit == "percentunit" and (not highest or highest >= _HALF):
        return 1
    # Seconds may be microseconds.
    return round(1.1 * highest, 6) or (1e-6 if panel.unit == "s" else 1)


def _table(panel: Panel) -> Any:
    """One row for each set of labels, with the columns that are asked for, in their order."""
    made = table.Panel()
    names = [column.field for column in panel.columns]
    for id_val, options in (
        ("merge", {}),
        ("filterFieldsByName", {"include": {"names": names}}),
        (
            "organize",
            {
                "indexByName": {name: at for at, name in enumerate(names)},
                "renameByName": {column.field: column.title for column in panel.columns},
            },
        ),
    ):
        made.with_transformation(DataTransformerConfig(id_val=id_val, options=options))
    for column in panel.columns:
        links = [{"title": link.title, "url": link.url} for link in column.links]
        wanted = {
            "unit": column.unit,
            "custom.width": column.width,
            "custom.hidden": column.is_hidden,
            "links": links,
            "custom.cellOptions": {"type": "color-text"} if column.is_coloured else None,
        }
        properties = [DynamicConfigValue(name, value) for name, value in wanted.items() if value]
        if properties:
            made.override_by_name(column.title, properties)
    return made


def _panel(panel: Panel, place: GridPos) -> Any:
    source = _LOGS if panel.is_of_logs else _SOURCE
    made = _builder(panel).id(panel_id(panel.name)).title(panel.title).unit(panel.unit)
    made.grid_pos(place).datasource(source).thresholds(_colours(panel))
    made.description(f"{panel.text} (panel:{panel.name})")
    if panel.texts:
        options = {f"{value:g}": ValueMappingResult(text=text) for value, text in panel.texts}
        made.mappings([ValueMap(options=options)])
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        ask = _log_query if panel.is_of_logs else _query
        made.with_target(ask(panel, query).ref_id(letter).datasource(source))
    return made


def _query(panel: Panel, query: Query) -> Any:
    target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend or "__auto")
    if panel.kind in _OF_NOW:
        target.instant()
    if panel.kind == "table":
        target.format(PromQueryFormat.TABLE)
    if panel.kind == "histogram":
        target.format(PromQueryFormat.HEATMAP)
    return target


def _log_query(panel: Panel, query: Query) -> Any:
    target = loki.Dataquery().expr(query.expr).legend_format(query.legend)
    target.query_type("instant" if panel.kind in _OF_NOW else "range")
    return target.max_lines(_MOST_LINES) if panel.kind == "logs" else target


def _places(panels: Sequence[Panel], top: int) -> tuple[list[GridPos], int]:
    """Where the panels of a row stand; and where the next row begins."""
    places, x, y, tallest = [], 0, top, 0
    for panel in panels:
        if x + panel.width > WIDTH:
            x, y, tallest = 0, y + tallest, 0
        places.append(GridPos(h=panel.height, w=panel.width, x=x, y=y))
        x, tallest = x + panel.width, max(tallest, panel.height)
    return places, y + tallest


def _label_variable(name: str, query: str, *, is_multi: bool) -> Any:
    made = dashboard.QueryVariable(name).label(name).query(query).datasource(_SOURCE)
    made.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    return made.multi(True).include_all(True).all_value(".*") if is_multi else made


def _annotation(name: str, expr: str, colour: str) -> Any:
    made = dashboard.AnnotationQuery().name(name).datasource(_SOURCE).enable(True)
    return made.expr(expr).icon_color(colour)


def _typed_in(variable: Variable) -> Any:
    if not variable.choices:
        box = dashboard.TextBoxVariable(variable.name).label(variable.label)
        return box.default_value(variable.value)
    values = ",".join(f"{text} : {value}" for text, value in variable.choices)
    text = next(text for text, value in variable.choices if value == variable.value)
    made = dashboard.CustomVariable(variable.name).label(variable.label).values(values)
    return made.current(VariableOption(selected=True, text=text, value=variable.value))


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
                _DEPLOYED.format('{job="$job"}' if page.chooses_job else ""),
                "blue",
            )
        )
    )
    if page.chooses_job:
        made.with_variable(_label_variable("job", _JOBS, is_multi=False))
        made.with_variable(_label_variable("instance", _INSTANCES, is_multi=True))
    if page.chooses_worker:
        made.with_variable(_label_variable("worker", _WORKERS, is_multi=True))
    if any(panel.is_of_logs for panel in page.panels):
        made.with_variable(dashboard.DatasourceVariable("logs").label("logs").type("loki"))
    for variable in page.variables:
        made.with_variable(_typed_in(variable))
    top = 0
    for title, panels in page.rows:
        made.with_row(
            dashboard.Row(title).id(panel_id(f"row {title}")).grid_pos(GridPos(1, WIDTH, 0, top))
        )
        places, top = _places(panels, top + 1)
        for panel, place in zip(panels, places, strict=True):
            made.with_panel(_panel(panel, place))
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"
