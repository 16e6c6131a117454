"""What queries of dashboards answer for given series, computed by promtool with all recording rules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from scripts.dashboards.pages import PAGES
from scripts.dashboards.panels import Panel
from tests.drawing.frames import interpolated
from tests.rules import promtool
from tests.rules.timeline import STEP_SECONDS, Series

CAPACITY: Final = promtool.DOCKER / "capacity.yml"
#: The variables of the dashboards, as they are before anybody chooses.
VARIABLES: Final = {
    "job": "websocket-app",
    "instance": ".*",
    "worker": ".*",
    "__rate_interval": "1m",
    "__range": "5m",
    **{one.name: one.value for page in PAGES for one in page.variables},
}


def filled_in(expr: str, **chosen: str) -> str:
    """A query as Grafana sends it: with the values of the variables."""
    return interpolated(expr, {**VARIABLES, **chosen})


_TEXTS = re.compile(r'"(?:[^"\\]|\\.)*"')
_RANGES_AND_MATCHERS = re.compile(r"\[[^]]*\]|\{[^}]*\}")
_CLAUSES = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_NAMES = re.compile(r"(?<![\w:.$])[a-zA-Z_:][\w:]*(?![\w:]|\s*\()")
_WORDS = {"and", "or", "unless", "bool", "offset"}


def metrics_of(expr: str) -> set[str]:
    """The names of all metrics that a query reads."""
    plain = filled_in(expr)
    for part in (_TEXTS, _RANGES_AND_MATCHERS, _CLAUSES):
        plain = part.sub("", plain)
    return set(_NAMES.findall(plain)) - _WORDS


def grouping_labels_of(expr: str) -> set[str]:
    """The labels by which a query groups and matches."""
    clauses = _CLAUSES.findall(_TEXTS.sub("", expr))
    return {label.strip() for clause in clauses for label in clause.split(",")} - {""}


def panel(name: str) -> Panel:
    """The panel of a name, which may stand in several dashboards."""
    [found] = {one for page in PAGES for one in page.panels if one.name == name}
    return found


def assert_answers(
    folder: Path,
    series: Sequence[Series],
    answers: Sequence[tuple[str, str, Mapping[str, float]]],
) -> None:
    """Hold queries against their answers.

    Args:
        answers: query, virtual time, and the value for each set of labels, written as `{version="2"}`.
    """
    test: dict[str, Any] = {
        "interval": f"{STEP_SECONDS}s",
        "input_series": [{"series": str(s), "values": s.values(1, STEP_SECONDS)} for s in series],
        "promql_expr_test": [
            {
                "expr": filled_in(expr),
                "eval_time": at,
                "exp_samples": [
                    {"labels": labels, "value": value} for labels, value in seen.items()
                ],
            }
            for expr, at, seen in answers
        ],
    }
    path = folder / "queries.yml"
    document = {
        "rule_files": [str(promtool.RULES), str(CAPACITY)],
        "evaluation_interval": f"{STEP_SECONDS}s",
        "tests": [test],
    }
    path.write_text(yaml.safe_dump(document, width=10**9))
    done = promtool.run(path)
    assert done.returncode == 0, done.stdout + done.stderr
