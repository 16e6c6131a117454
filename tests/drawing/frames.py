"""Answers of Prometheus and Loki as the data frames that Grafana's components draw.

The names and shapes are those of the JSON form of a frame in `@grafana/data` (DataFrameDTO), made as Grafana's data
sources make them: a field of times in milliseconds, a field of values with the labels, and the name of the
legend. Nothing here does input or output.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

Frame = dict[str, Any]
Labels = Mapping[str, str]

AUTO = "__auto"
_VARIABLE = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)")
_LEGEND_LABEL = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_NICE_SECONDS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600)


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """A text with `$name` and `${name}` replaced; a name without a value stays as it is."""

    def value(found: re.Match[str]) -> str:
        return variables.get(found[1] or found[2], found[0])

    return _VARIABLE.sub(value, text)


def step_seconds(span_seconds: float, points: int, scrape_seconds: float) -> float:
    """The step of a range query: what so many points need, rounded up, and no less than a scrape."""
    least = max(span_seconds / points, scrape_seconds)
    return float(next((nice for nice in _NICE_SECONDS if nice >= least), _NICE_SECONDS[-1]))


def rate_interval(step: float, scrape_seconds: float) -> str:
    """Grafana's `$__rate_interval`: at least four scrapes, and a scrape longer than the step."""
    return f"{max(step + scrape_seconds, 4 * scrape_seconds):g}s"


def legend_of(pattern: str, labels: Labels, expr: str) -> str:
    """The name of a series as the Prometheus data source gives it; "" lets Grafana name it by its labels."""
    if pattern and pattern != AUTO:
        return _LEGEND_LABEL.sub(lambda found: labels.get(found[1], ""), pattern)
    return "" if labels else expr


def number(text: str) -> float | None:
    """A value of Prometheus; NaN is none, as a gap in a graph."""
    value = float(text)
    return None if math.isnan(value) else value


def series_frames(
    result: Sequence[Mapping[str, Any]], ref: str, legend: str, expr: str, step: float
) -> list[Frame]:
    """One frame for each series of a matrix or a vector.

    Args:
        result: `data.result` of Prometheus' answer.
        step: seconds between two points: a longer pause is a gap.
    """
    return [
        {
            "refId": ref,
            "name": legend_of(legend, one["metric"], expr),
            "fields": _time_and_value(one, legend, expr, step),
        }
        for one in result
    ]


def _time_and_value(one: Mapping[str, Any], legend: str, expr: str, step: float) -> list[Any]:
    points = one["values"] if "values" in one else [one["value"]]
    name = legend_of(legend, one["metric"], expr)
    return [
        {
            "name": "Time",
            "type": "time",
            "config": {"interval": step * 1000},
            "values": [round(float(when) * 1000) for when, _ in points],
        },
        {
            "name": "Value",
            "type": "number",
            "labels": dict(one["metric"]),
            "config": {"displayNameFromDS": name} if name else {},
            "values": [number(text) for _, text in points],
        },
    ]


def with_gaps(frame: Frame) -> Frame:
    """A frame of a series with an empty value after each point that is followed by none for a step.

    Grafana's panel of graphs does this before it draws; the component itself does it for the first series only.
    """
    time, *others = frame["fields"]
    step = time["config"].get("interval")
    if not step:
        return frame
    times: list[int] = []
    columns: list[list[Any]] = [[] for _ in others]
    for at, when in enumerate(time["values"]):
        if times and when - times[-1] > step:
            times.append(times[-1] + round(step))
            for column in columns:
                column.append(None)
        times.append(when)
        for column, field in zip(columns, others, strict=True):
            column.append(field["values"][at])
    filled = [{**field, "values": column} for field, column in zip(others, columns, strict=True)]
    return {**frame, "fields": [{**time, "values": times}, *filled]}


def table_frame(result: Sequence[Mapping[str, Any]], ref: str, *, is_only: bool) -> Frame:
    """A vector as one frame with a column for each label, as the format `table` gives it.

    Args:
        is_only: whether it is the panel's only query; else its column of values is named for the query.
    """
    names = sorted({name for one in result for name in one["metric"]})
    labels = [
        {
            "name": name,
            "type": "string",
            "config": {},
            "values": [one["metric"].get(name, "") for one in result],
        }
        for name in names
    ]
    return {
        "refId": ref,
        "fields": [
            {
                "name": "Time",
                "type": "time",
                "config": {},
                "values": [round(float(one["value"][0]) * 1000) for one in result],
            },
            *labels,
            {
                "name": "Value" if is_only else f"Value #{ref}",
                "type": "number",
                "config": {},
                "values": [number(one["value"][1]) for one in result],
            },
        ],
    }


def bucket_frames(result: Sequence[Mapping[str, Any]], ref: str) -> list[Frame]:
    """Cumulative buckets of a classic histogram as one frame for each bucket, smallest first.

    The format `heatmap` of the Prometheus data source does this: sorted by `le`, each bucket without
    those below it, named by its upper end.
    """
    ordered = sorted(result, key=lambda one: float(one["metric"]["le"]))
    frames, below = [], dict.fromkeys(_times(ordered), 0.0)
    for one in ordered:
        fields = _time_and_value(one, "{{le}}", "", 0)
        times, values = fields[0]["values"], fields[1]["values"]
        counts = [
            None if value is None else max(0.0, value - below.get(when, 0.0))
            for when, value in zip(times, values, strict=True)
        ]
        below |= {w: v for w, v in zip(times, values, strict=True) if v is not None}
        fields[1]["values"] = counts
        frames.append({"refId": ref, "name": one["metric"]["le"], "fields": fields})
    return frames


def moments(result: Sequence[Mapping[str, Any]], step: float) -> list[tuple[int, int]]:
    """When series of an annotation's query have values: the first and last millisecond of each run of them."""
    runs: list[tuple[int, int]] = []
    for one in result:
        times = [round(float(when) * 1000) for when, _ in one["values"]]
        begins = [
            at for at in range(len(times)) if not at or times[at] - times[at - 1] > step * 1000
        ]
        for first, after in zip(begins, [*begins[1:], len(times)], strict=True):
            runs.append((times[first], times[after - 1]))
    return sorted(runs)


def _times(result: Sequence[Mapping[str, Any]]) -> set[int]:
    points = [p for one in result for p in one.get("values", [one.get("value")])]
    return {round(float(when) * 1000) for when, _ in points}


def log_frame(result: Sequence[Mapping[str, Any]], ref: str, most: int) -> Frame:
    """Streams of Loki as a frame of lines, the newest first.

    Args:
        result: `data.result` of an answer of the result type `streams`.
        most: how many lines.
    """
    lines = sorted(
        ((int(value[0]), value[1], one["stream"]) for one in result for value in one["values"]),
        key=lambda line: -line[0],
    )[:most]
    labels = ("level", "instance", "event")
    return {
        "refId": ref,
        "fields": [
            {
                "name": "Time",
                "type": "time",
                "config": {},
                "values": [when // 1_000_000 for when, _, _ in lines],
            },
            *(
                {
                    "name": name,
                    "type": "string",
                    "config": {},
                    "values": [stream.get(name, "") for _, _, stream in lines],
                }
                for name in labels
            ),
            {
                "name": "Line",
                "type": "string",
                "config": {},
                "values": [text for _, text, _ in lines],
            },
        ],
    }
