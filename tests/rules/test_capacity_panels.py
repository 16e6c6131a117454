"""How full each resource is, when it ends and which one is the first: for series whose answer is known, by promtool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from scripts.dashboards.panels import Query
from scripts.dashboards.resources import RESOURCES
from tests.rules.panel_queries import assert_answers, panel
from tests.rules.timeline import Piece, Series, app, climb, drift, gone, hold, of

DAY = 86400.0
WEEK = 7 * DAY
TEN_YEARS = 3650 * DAY
NAMES = [resource.name for resource in RESOURCES]
every_resource = pytest.mark.parametrize("name", NAMES)


def query(panel_name: str, resource: str) -> Query:
    [found] = [one for one in panel(panel_name).queries if one.legend == resource]
    return found


def rising(per_minute: float) -> tuple[Piece, ...]:
    """A gauge that begins at 0."""
    return hold(0, "15s"), drift(per_minute, "2h")


def busier(per_minute: float) -> tuple[Piece, ...]:
    """A counter whose rate grows by so much every minute."""
    return tuple(climb(minute * per_minute, "1m") for minute in range(120))


class Growth(NamedTuple):
    """A resource that grows for two hours: after 90 minutes it is so full, ends after so many seconds, and in a week is so full."""

    series: tuple[Series, ...]
    share: float
    seconds: float
    in_a_week: float


def valkey_cpu(kind: str, *pieces: Piece) -> Series:
    return of("redis", f"redis_cpu_{kind}_seconds_total", *pieces)


# Rates are means of the minutes before: 87 x 0.002 of the five before the ninetieth.
GROWTHS: Mapping[str, Growth] = {
    "connections": Growth(
        (
            app("app_active_connections", *rising(40)),
            app("app_active_connections", *rising(20), instance="b"),
            app("app_connection_capacity", hold(5400, "2h")),
            app("app_connection_capacity", hold(5400, "2h"), instance="b"),
        ),
        *(0.5, 5400, 56.5),
    ),
    "memory": Growth(
        (
            app("app_memory_working_set_bytes", *rising(1e6)),
            app("app_memory_limit_bytes", hold(270e6, "2h")),
            app("app_memory_working_set_bytes", *rising(5e5), instance="b"),
            app("app_memory_limit_bytes", hold(270e6, "2h"), instance="b"),
        ),
        *(1 / 3, 10_800, 37.67),
    ),
    "file descriptors": Growth(
        (
            app("app_worker_open_fds", *rising(10), worker="0"),
            app("app_worker_max_fds", hold(3600, "2h"), worker="0"),
            app("app_worker_open_fds", *rising(5), worker="1"),
            app("app_worker_max_fds", hold(3600, "2h"), worker="1"),
        ),
        *(0.25, 16_200, 28.25),
    ),
    "CPU of the busiest worker": Growth(
        (
            app("app_worker_cpu_seconds_total", *busier(0.002), worker="0"),
            app("app_worker_cpu_seconds_total", *busier(0.001), worker="1"),
        ),
        *(0.174, 24_780, 20.33),
    ),
    "nginx": Growth(
        (of("nginx", "nginx_connections_active", *rising(100)),),
        *(9000 / 32000, 13_800, 31.78),
    ),
    "memory of Valkey": Growth(
        (
            of("redis", "redis_memory_used_bytes", *rising(1e6)),
            of("redis", "redis_memory_max_bytes", hold(128e6, "2h")),
        ),
        *(0.703, 2280, 79.45),
    ),
    "CPU of Valkey": Growth(
        (valkey_cpu("user", *busier(0.002)), valkey_cpu("sys", *busier(0.001))),
        *(0.267, 14_660, 30.5),
    ),
}
ALL_GROW = [series for growth in GROWTHS.values() for series in growth.series]


def steps(expr: str, step: float) -> str:
    """How many such steps a value is."""
    return f"round(({expr}) / {step})"


@pytest.mark.parametrize("shown", ["ends-first", "full-in", "in-a-week"])
def test_each_resource_of_the_table_has_its_row_in_the_same_order(shown: str):
    rows = panel(shown).queries
    assert [row.legend for row in rows] == NAMES == list(GROWTHS)
    assert [row.job for row in rows] == [resource.job for resource in RESOURCES]


def test_the_first_to_end_is_chosen_of_all_resources():
    [first] = panel("first-to-end").queries
    assert first.legend == "{{resource}}"
    for row in panel("full-in").queries:
        assert f'label_replace({row.expr}, "resource", "{row.legend}", "", "")' in first.expr


def test_the_limits_that_replicas_share_are_of_the_same_table():
    shared = [row for row in panel("ends-first").queries if row.job]
    assert {"nginx", "memory of Valkey", "CPU of Valkey"} == {row.legend for row in shared}
    # Where exporters are scraped, these are tried as queries of this panel.
    assert shared == list(panel("store-limits").queries)
    assert panel("store-limits").job


@every_resource
def test_a_resource_ends_when_its_growth_reaches_its_limit(name: str, tmp_path: Path):
    growth = GROWTHS[name]
    assert_answers(
        tmp_path,
        growth.series,
        [
            (steps(query(shown, name).expr, step), "1h30m", {"{}": round(value / step)})
            for shown, value, step in (
                ("ends-first", growth.share, 0.01),
                ("full-in", growth.seconds, 300),
                ("in-a-week", growth.in_a_week, 0.25),
            )
        ],
    )


def test_the_first_to_end_has_its_name_and_its_time(tmp_path: Path):
    [first] = panel("first-to-end").queries
    expr = steps(first.expr, 60)
    without_valkey = [one for one in ALL_GROW if one.labels["job"] != "redis"]
    for number, (series, name, seconds) in enumerate(
        (
            (ALL_GROW, "memory of Valkey", 2280),
            (without_valkey, "connections", 5400),
            (GROWTHS["nginx"].series, "nginx", 13_800),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert_answers(folder, series, [(expr, "1h30m", {f'{{resource="{name}"}}': seconds / 60})])


# Everything that is used, and does not change.
CONSTANT = [
    app("app_active_connections", hold(100, "2h")),
    app("app_connection_capacity", hold(1000, "2h")),
    app("app_memory_working_set_bytes", hold(200e6, "2h")),
    app("app_memory_limit_bytes", hold(1e9, "2h")),
    app("app_worker_open_fds", hold(50, "2h"), worker="0"),
    app("app_worker_max_fds", hold(1000, "2h"), worker="0"),
    app("app_worker_cpu_seconds_total", climb(0, "2h"), worker="0"),
    of("nginx", "nginx_connections_active", hold(100, "2h")),
    of("redis", "redis_memory_used_bytes", hold(1e6, "2h")),
    of("redis", "redis_memory_max_bytes", hold(1e9, "2h")),
    valkey_cpu("user", climb(0, "2h")),
    valkey_cpu("sys", climb(0, "2h")),
]


def test_what_does_not_grow_lasts_ten_years_and_is_not_the_first_to_end(tmp_path: Path):
    [first] = panel("first-to-end").queries
    rows = panel("full-in").queries
    answers = [(row.expr, "1h30m", {"{}": TEN_YEARS}) for row in rows]
    answers.append((first.expr, "1h30m", {'{resource="none"}': TEN_YEARS}))
    assert_answers(tmp_path, CONSTANT, answers)


@pytest.mark.parametrize("used", [1000, 1200])
def test_what_is_full_ends_now_although_it_does_not_grow(used: int, tmp_path: Path):
    series = [
        app("app_active_connections", hold(used, "2h")),
        app("app_connection_capacity", hold(1000, "2h")),
    ]
    [first] = panel("first-to-end").queries
    assert_answers(
        tmp_path,
        series,
        [
            (query("full-in", "connections").expr, "1h30m", {"{}": 0}),
            (first.expr, "1h30m", {'{resource="connections"}': 0}),
        ],
    )


def rows_of_all_panels() -> list[Query]:
    shown = ("ends-first", "full-in", "in-a-week", "first-to-end")
    return [row for name in shown for row in panel(name).queries]


def test_without_series_there_is_no_row(tmp_path: Path):
    assert_answers(tmp_path, [], [(row.expr, "1h30m", {}) for row in rows_of_all_panels()])


@every_resource
def test_a_resource_whose_series_have_ended_has_no_row_although_it_grew_before(
    name: str, tmp_path: Path
):
    ended = [
        Series(
            one.name,
            one.labels,
            (climb(0.5, "1h") if one.name.endswith("_total") else drift(1, "1h"), gone("1h")),
        )
        for one in GROWTHS[name].series
    ]
    # The limit of nginx is typed in, so it is there without nginx.
    rows = [row for row in rows_of_all_panels() if row.legend in (name, "{{resource}}")]
    assert len(rows) == 4
    assert_answers(tmp_path, ended, [(row.expr, "1h50m", {}) for row in rows])


def test_a_valkey_without_maxmemory_has_no_row(tmp_path: Path):
    series = [
        of("redis", "redis_memory_used_bytes", *rising(1e6)),
        of("redis", "redis_memory_max_bytes", hold(0, "2h")),
    ]
    rows = [
        row for row in rows_of_all_panels() if row.legend in ("memory of Valkey", "{{resource}}")
    ]
    assert len(rows) == 4
    assert_answers(tmp_path, series, [(row.expr, "1h30m", {}) for row in rows])


def test_a_replica_that_starts_is_no_growth(tmp_path: Path):
    """It uses what the others use, and a slope of its first minutes would say that it ends in minutes."""
    starts = (hold(0, "85m"), drift(25, "2m"), hold(50, "30m"))
    started = [
        app("app_memory_working_set_bytes", *starts, instance="b"),
        app("app_memory_limit_bytes", hold(250, "2h"), instance="b"),
        app("app_worker_open_fds", *starts, instance="b", worker="0"),
        app("app_worker_max_fds", hold(1000, "2h"), instance="b", worker="0"),
    ]
    assert_answers(
        tmp_path,
        [*CONSTANT, *started],
        [
            (query("full-in", name).expr, "1h30m", {"{}": TEN_YEARS})
            for name in ("memory", "file descriptors")
        ],
    )


def test_a_replica_that_is_added_changes_the_room_and_not_the_growth(tmp_path: Path):
    series = [
        app("app_active_connections", *rising(60)),
        app("app_connection_capacity", hold(6000, "2h")),
        app("app_connection_capacity", gone("1h"), hold(4800, "1h"), instance="b"),
    ]
    expr = query("full-in", "connections").expr
    assert_answers(
        tmp_path,
        series,
        [
            (steps(expr, 60), "50m", {"{}": 50}),
            (steps(expr, 60), "1h30m", {"{}": 90}),
        ],
    )
