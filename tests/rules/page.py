"""docs/alerts.md, written from the rules, the given alerts and the routes.

`python -m tests.rules.page` writes it; test_page.py holds it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import yaml

from tests.architecture.tree import ROOT
from tests.rules import promtool
from tests.rules.mutants import mutants
from tests.rules.promtool import Rule
from tests.rules.seed import GIVEN
from tests.rules.survivors import SURVIVORS
from tests.rules.test_routes import RECEIVERS, configuration, inhibited

PAGE = ROOT / "docs" / "alerts.md"

_HEAD = """# Alerts

<!-- Written by `python -m tests.rules.page` from docker/alert_rules.yml and tests/rules/. -->

{count} alerts, all of them in `docker/alert_rules.yml`. Acknowledge a critical alert within 5
minutes and a warning within 30; the others are for information. Unit tests (`tests/rules/`) check that
each alert fires, does not fire just below its threshold, waits exactly its time, handles series that
vanish and several replicas, and resolves. A drill (`loadtest/drills/`) provokes each one in a real
cluster. The name links to the runbook; the panel shows the value in
[Grafana](how-to/grafana.md).

The unit tests are tested too: `python -m tests.rules.mutants` makes one small mistake at a time in a rule: a
threshold, a comparison, a window, a `for`, an aggregation. Of {mutants} mistakes the tests notice {noticed}; no
test can notice the other {survivors}, each for a reason in `tests/rules/survivors.py`.
"""

_GIVEN = """## The given eleven

Name, severity, team, threshold and `for` are those of the specification. Its expressions had flaws; a
test demonstrates each with the given expression.
"""

_INHIBITED = """## Inhibition

An alert is inhibited only if another firing alert reports the same, with at least the same severity, to
the same team. `docker/alertmanager.yml` gives the reason for each.
"""

_RECORDED = """## Recording rules

Expressions that dashboards and alerts share.
"""


def one_line(expression: str) -> str:
    """An expression without its line breaks and comments, as inline code."""
    plain = re.sub(r"#[^\n]*", "", expression)
    return f"`{' '.join(plain.split())}`"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def _overview(alerts: dict[str, Rule]) -> str:
    square = yaml.safe_load((ROOT / "docker" / "square.yml").read_text())["alerts"]
    rows = [
        (
            f"[{name}](runbooks/{name}.md)",
            rule["labels"]["severity"],
            rule["labels"]["team"],
            str(rule.get("for", "at once")),
            ", ".join(RECEIVERS[name]),
            rule["annotations"]["summary"],
            f"`{square[name]['panel']}`",
        )
        for name, rule in alerts.items()
    ]
    return table(("alert", "severity", "team", "for", "reaches", "says", "panel"), rows)


def _given(alerts: dict[str, Rule]) -> str:
    rows = [
        (f"`{name}`", one_line(one.expr), one.flaw, one_line(alerts[name]["expr"]), one.ours)
        for name, one in GIVEN.items()
    ]
    return table(("alert", "given expression", "flaw", "ours", "in words"), rows)


def _further(alerts: dict[str, Rule]) -> str:
    rows = [
        (f"`{name}`", one_line(rule["expr"]), rule["annotations"]["summary"])
        for name, rule in alerts.items()
        if name not in GIVEN
    ]
    return table(("alert", "expression", "says"), rows)


def page() -> str:
    """The whole page."""
    alerts = promtool.alerts()
    made = sum(len(list(mutants(alert))) for alert in alerts)
    held = [(f"`{s}`", f"`{t}`") for s, t in inhibited(configuration()["inhibit_rules"])]
    recorded = [(f"`{n}`", one_line(r["expr"])) for n, r in promtool.recordings().items()]
    return "\n".join(
        (
            _HEAD.format(
                count=len(alerts),
                mutants=made,
                noticed=made - len(SURVIVORS),
                survivors=len(SURVIVORS),
            ),
            _overview(alerts),
            _GIVEN,
            _given(alerts),
            "## Beyond them\n",
            _further(alerts),
            _INHIBITED,
            table(("while this fires", "this is inhibited"), held),
            _RECORDED,
            table(("name", "expression"), recorded),
        )
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
