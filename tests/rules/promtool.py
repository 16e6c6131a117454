"""Rules and cases as files for promtool, and promtool itself."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.architecture.tree import ROOT
from tests.rules.timeline import STEP_SECONDS, Case, length

DOCKER = ROOT / "docker"
RULES = DOCKER / "alert_rules.yml"

Rule = dict[str, Any]

# Its windows are hours long.
SLOW_STEP_SECONDS = {"ErrorBudgetFastBurn": 60}


def step_of(alert: str) -> int:
    """Virtual seconds between two samples, and two evaluations, in an alert's cases."""
    return SLOW_STEP_SECONDS.get(alert, STEP_SECONDS)


@cache
def _groups(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def groups(path: Path = RULES) -> list[dict[str, Any]]:
    """The rule groups of a file, as a copy that may be changed."""
    return list(yaml.safe_load(_groups(path))["groups"])


def alerts(path: Path = RULES) -> dict[str, Rule]:
    return {r["alert"]: r for group in groups(path) for r in group["rules"] if "alert" in r}


def recordings(path: Path = RULES) -> dict[str, Rule]:
    return {r["record"]: r for group in groups(path) for r in group["rules"] if "record" in r}


def part(alert: str, path: Path = RULES) -> list[Rule]:
    """An alert's rule after the recording rules that it reads."""
    rule = alerts(path)[alert]
    return [r for name, r in recordings(path).items() if name in rule["expr"]] + [rule]


def _milliseconds(virtual_seconds: float, compress: float) -> str:
    return f"{round(virtual_seconds * 1000 / compress)}ms"


def _seen_labels(rule: Rule, labels: Mapping[str, str]) -> dict[str, str]:
    return {**rule.get("labels", {}), **labels}


def _sample(rule: Rule, state: str, labels: Mapping[str, str]) -> dict[str, Any]:
    shown = {"alertname": rule["alert"], "alertstate": state, **_seen_labels(rule, labels)}
    text = ", ".join(f'{key}="{value}"' for key, value in shown.items())
    return {"labels": f"ALERTS{{{text}}}", "value": 1}


def as_test(case: Case, rule: Rule, *, compress: float = 1.0) -> dict[str, Any]:
    """One case in the format of promtool."""
    name = rule["alert"]
    test: dict[str, Any] = {
        "name": f"{name}: {case.name}",
        "interval": _milliseconds(step_of(name), compress),
        "input_series": [
            {"series": str(s), "values": s.values(compress, step_of(name))} for s in case.series
        ],
        "promql_expr_test": [
            {
                "expr": f'ALERTS{{alertname="{name}"}}',
                "eval_time": _milliseconds(length(at), compress),
                "exp_samples": [_sample(rule, one.state, one.labels) for one in seen],
            }
            for at, seen in case.at.items()
        ],
    }
    if case.says and compress == 1:
        at, text = case.says
        (one,) = case.at[at]
        expected = {
            "exp_labels": _seen_labels(rule, one.labels),
            "exp_annotations": {**rule["annotations"], "description": text},
        }
        test["alert_rule_test"] = [
            {
                "eval_time": _milliseconds(length(at), compress),
                "alertname": name,
                "exp_alerts": [expected],
            }
        ]
    return test


def write(folder: Path, rules: list[Rule] | Path, tests: Iterable[dict[str, Any]]) -> Path:
    """Write a test file, and the rules beside it unless they are a file already."""
    if isinstance(rules, Path):
        rule_file = rules
        order = [group["name"] for group in groups(rules)]
    else:
        rule_file = folder / "rules.yml"
        order = ["g"]
        document: dict[str, Any] = {"groups": [{"name": "g", "rules": rules}]}
        rule_file.write_text(yaml.safe_dump(document, allow_unicode=True))
    path = folder / "tests.yml"
    written = list(tests)
    document = {
        "rule_files": [str(rule_file)],
        "evaluation_interval": written[0]["interval"],
        "group_eval_order": order,
        "tests": written,
    }
    path.write_text(yaml.safe_dump(document, allow_unicode=True, width=10**9))
    return path


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
    )


def run(path: Path) -> subprocess.CompletedProcess[str]:
    """Run a test file; 0 if every expectation is met."""
    return promtool("test", "rules", path)


def metrics_of(expression: str) -> set[str]:
    """The metrics of the application that an expression reads, without recorded ones."""
    return set(re.findall(r"(?<![\w:])app_\w+(?![\w:])", expression))


def matched_labels_of(expression: str) -> list[tuple[str, str, str]]:
    """Metric, label and value of every label matcher on a metric of the application."""
    found = []
    for metric, matchers in re.findall(r"(?<![\w:])(app_\w+)\{([^}]*)\}", expression):
        for label, values in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
            if label != "job":
                found += [(metric, label, value) for value in values.split("|")]
    return found
