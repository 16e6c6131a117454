"""Answers of Prometheus and Loki become the data frames that Grafana's components draw."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.architecture.tree import ROOT
from tests.drawing.frames import (
    AUTO,
    bucket_frames,
    interpolated,
    legend_of,
    log_frame,
    moments,
    rate_interval,
    series_frames,
    step_seconds,
    table_frame,
    with_gaps,
)


def series(values: list[tuple[float, str]], **labels: str) -> dict[str, Any]:
    return {"metric": labels, "values": [list(one) for one in values]}


def sample(value: str, when: float = 100.0, **labels: str) -> dict[str, Any]:
    return {"metric": labels, "value": [when, value]}


def columns(frame: dict[str, Any]) -> dict[str, list[Any]]:
    return {field["name"]: field["values"] for field in frame["fields"]}


def test_a_series_has_times_in_milliseconds_and_the_step_as_its_interval():
    [frame] = series_frames([series([(1.5, "2"), (4.5, "3")], a="x")], "B", "{{a}}", "up", 3)
    time, value = frame["fields"]
    assert (time["type"], time["values"], time["config"]) == (
        "time",
        [1500, 4500],
        {"interval": 3000},
    )
    assert (value["type"], value["values"], value["labels"]) == ("number", [2.0, 3.0], {"a": "x"})
    assert value["config"] == {"displayNameFromDS": "x"}
    assert (frame["refId"], frame["name"]) == ("B", "x")


def test_no_number_is_a_gap_and_infinity_stays():
    [frame] = series_frames([series([(1, "NaN"), (2, "+Inf"), (3, "-1e3")])], "A", AUTO, "up", 1)
    assert frame["fields"][1]["values"] == [None, float("inf"), -1000.0]


def test_a_pause_that_is_longer_than_a_step_is_a_gap():
    points = [(0.0, "1"), (5.0, "2"), (20.0, "3"), (25.0, "4")]
    [frame] = series_frames([series(points)], "A", "", "up", 5)
    filled = columns(with_gaps(frame))
    assert filled == {"Time": [0, 5000, 10000, 20000, 25000], "Value": [1, 2, None, 3, 4]}
    [whole] = series_frames([series(points[:2])], "A", "", "up", 5)
    assert with_gaps(whole) == whole


def test_a_sample_is_a_series_of_one_point():
    [frame] = series_frames([sample("7", 12.25)], "A", "now", "up", 15)
    assert columns(frame) == {"Time": [12250], "Value": [7.0]}


def test_no_series_is_no_frame():
    assert series_frames([], "A", "", "up", 1) == []


@pytest.mark.parametrize(
    ("pattern", "labels", "wanted"),
    [
        ("{{a}} to {{ b }}", {"a": "1", "b": "2"}, "1 to 2"),
        ("{{gone}}!", {"a": "1"}, "!"),
        ("fixed", {}, "fixed"),
        (AUTO, {"a": "1"}, ""),
        (AUTO, {}, "sum (up)"),
        ("", {}, "sum (up)"),
    ],
)
def test_a_series_is_named_as_the_data_source_names_it(
    pattern: str, labels: dict[str, str], wanted: str
):
    assert legend_of(pattern, labels, "sum (up)") == wanted


def test_a_table_has_a_column_for_each_label_and_an_empty_text_where_a_row_has_none():
    frame = table_frame([sample("1", a="x"), sample("2", b="y")], "A", is_only=True)
    assert columns(frame) == {
        "Time": [100000, 100000],
        "a": ["x", ""],
        "b": ["", "y"],
        "Value": [1.0, 2.0],
    }


def test_of_several_queries_the_columns_of_values_are_named_for_the_query():
    assert "Value #C" in columns(table_frame([sample("1")], "C", is_only=False))


def test_buckets_are_sorted_by_their_end_and_have_what_those_below_have_not():
    result = [
        series([(1, "9"), (2, "9")], le="+Inf"),
        series([(1, "2"), (2, "3")], le="0.5"),
        series([(1, "7"), (2, "8")], le="10"),
    ]
    frames = bucket_frames(result, "A")
    assert [frame["name"] for frame in frames] == ["0.5", "10", "+Inf"]
    assert [columns(frame)["Value"] for frame in frames] == [[2, 3], [5, 5], [2, 1]]


def test_an_annotation_has_a_run_for_each_time_its_series_has_values():
    result = [series([(10, "1"), (15, "1"), (40, "1")], a="x"), series([(12, "1")], a="y")]
    assert moments(result, 5) == [(10000, 15000), (12000, 12000), (40000, 40000)]


def test_lines_are_in_one_frame_with_the_newest_first_and_no_more_than_asked_for():
    result = [
        {"stream": {"level": "info"}, "values": [["1000000000", "old"], ["3000000000", "new"]]},
        {"stream": {"level": "error", "event": "e"}, "values": [["2000000000", "mid"]]},
    ]
    frame = log_frame(result, "A", 2)
    assert columns(frame)["Line"] == ["new", "mid"]
    assert columns(frame)["Time"] == [3000, 2000]
    assert columns(frame)["event"] == ["", "e"]


def test_variables_are_filled_in_and_unknown_names_stay():
    values = {"job": "app", "workers": "2"}
    assert interpolated('a{job="$job"} * ${workers} + $other', values) == (
        'a{job="app"} * 2 + $other'
    )


@pytest.mark.parametrize(
    ("span", "points", "scrape", "wanted"),
    [(10800, 250, 15, 60.0), (60, 250, 15, 15.0), (480, 250, 3, 5.0), (10**9, 250, 15, 3600.0)],
)
def test_the_step_fits_the_points_and_is_no_less_than_a_scrape(
    span: float, points: int, scrape: float, wanted: float
):
    assert step_seconds(span, points, scrape) == wanted


def test_the_rate_interval_has_four_scrapes_at_least():
    assert rate_interval(15, 15) == "60s"
    assert rate_interval(60, 15) == "75s"


def test_the_components_are_those_of_the_grafana_that_compose_starts():
    compose = yaml.safe_load((ROOT / "docker" / "compose.yml").read_text())
    [tag] = re.findall(r":-[^:]+:(.*)\}", compose["services"]["grafana"]["image"])
    wanted = json.loads((ROOT / "tests" / "drawing" / "package.json").read_text())["dependencies"]
    assert wanted["@grafana/ui"] == wanted["@grafana/data"] == tag
