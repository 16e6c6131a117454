"""Every alert fires, stays quiet, waits, survives what vanishes, counts replicas and resolves.

In the durations of docker/alert_rules.yml and in compressed time.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.metrics.catalogue import FAMILIES
from cluster.monitor.stack.render import Profile, render
from tests.rules import promtool
from tests.rules.cases import CASES, INAPPLICABLE
from tests.rules.promtool import DOCKER, RULES
from tests.rules.seed import GIVEN
from tests.rules.timeline import KINDS, Case, app, climb, hold

COMPRESS = 15
ALERTS = promtool.alerts()
every_alert = pytest.mark.parametrize("alert", ALERTS)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("compressed")
    return render(DOCKER, target, profile=Profile(compress=COMPRESS)).alert_rules


def assert_holds(alert: str, folder: Path, *, rules: Path = RULES, compress: float = 1) -> None:
    part = promtool.part(alert, rules)
    tests = [promtool.as_test(case, part[-1], compress=compress) for case in CASES[alert]]
    done = promtool.run(promtool.write(folder, part, tests))
    assert done.returncode == 0, done.stdout + done.stderr


@every_alert
def test_an_alert_does_what_its_cases_say(alert: str, tmp_path: Path):
    assert_holds(alert, tmp_path)


@every_alert
def test_an_alert_does_the_same_in_compressed_time(alert: str, tmp_path: Path, compressed: Path):
    assert_holds(alert, tmp_path, rules=compressed, compress=COMPRESS)


@every_alert
def test_an_alert_answers_every_question(alert: str):
    answered = {kind for case in CASES[alert] for kind in case.kinds.split()}
    assert answered <= KINDS
    assert answered | INAPPLICABLE.get(alert, {}).keys() == KINDS
    assert any(case.says for case in CASES[alert]), "no case holds the text"


@every_alert
def test_an_alert_says_what_is_wrong_how_much_and_what_to_do(alert: str):
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"critical", "warning", "info", "none"}
    assert rule["labels"]["team"] in {"websocket", "infrastructure"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert "$value" in rule["annotations"]["description"]
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{alert}.md"


@pytest.mark.parametrize("alert", GIVEN)
def test_a_given_alert_keeps_its_name_severity_team_and_wait(alert: str):
    rule, given = ALERTS[alert], GIVEN[alert]
    assert rule["labels"] == {"severity": given.severity, "team": given.team}
    assert rule.get("for", "") == given.wait


def test_the_given_groups_hold_the_given_alerts():
    found = {g["name"]: [r["alert"] for r in g["rules"] if "alert" in r] for g in promtool.groups()}
    assert found["websocket_alerts"] + found["system_alerts"] == list(GIVEN)
    assert len(found["system_alerts"]) == 2


@pytest.mark.parametrize("alert", GIVEN)
def test_the_given_expression_is_wrong_where_ours_is_right(alert: str, tmp_path: Path):
    given, ours = GIVEN[alert], ALERTS[alert]
    theirs = {**ours, "expr": given.expr}
    for number, shown in enumerate(given.shows):
        for rule, at in ((theirs, shown.given), (ours, shown.ours)):
            test = promtool.as_test(Case(shown.name, "", shown.series, at), rule)
            done = promtool.run(promtool.write(tmp_path, [rule], [test]))
            assert done.returncode == 0, f"{number} {rule['expr']}\n{done.stdout}{done.stderr}"


def test_the_cases_of_all_alerts_hold_in_the_whole_file(tmp_path: Path):
    tests = [
        promtool.as_test(CASES[alert][0], ALERTS[alert])
        for alert in ALERTS
        if alert not in promtool.SLOW_STEP_SECONDS
    ]
    done = promtool.run(promtool.write(tmp_path, RULES, tests))
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules_and_finds_them_all():
    done = promtool.promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stdout + done.stderr
    count = len(ALERTS) + len(promtool.recordings())
    assert f"{count} rules found" in done.stdout


def test_every_metric_of_the_application_is_in_the_catalogue():
    known = {f.name for f in FAMILIES}
    for part in ("bucket", "count"):
        known |= {f"{f.name}_{part}" for f in FAMILIES if f.kind == "histogram"}
    rules = [*ALERTS.values(), *promtool.recordings().values()]
    used = {name for rule in rules for name in promtool.metrics_of(rule["expr"])}
    assert used
    assert used - known == set()


def test_every_label_value_that_a_rule_asks_for_exists():
    known = {f.name: f.labels for f in FAMILIES}
    rules = [*ALERTS.values(), *promtool.recordings().values()]
    asked = [found for rule in rules for found in promtool.matched_labels_of(rule["expr"])]
    assert asked
    for metric, label, value in asked:
        assert value in known[metric][label], f"{metric}{{{label}={value}}}"


RECORDED = """
    job:app_active_connections:sum -> {job="websocket-app"} 7
    job:app_connection_utilisation:ratio -> {job="websocket-app"} 0.35
    job:app_messages:rate2m -> {job="websocket-app", direction="in"} 3
"""


def test_what_dashboards_read_is_recorded(tmp_path: Path):
    series = [
        app("app_active_connections", hold(3, "10m")),
        app("app_active_connections", hold(4, "10m"), instance="b"),
        app("app_connection_capacity", hold(10, "10m")),
        app("app_connection_capacity", hold(10, "10m"), instance="b"),
        app("app_messages_total", climb(1, "10m"), direction="in"),
        app("app_messages_total", climb(2, "10m"), direction="in", instance="b"),
    ]
    expected = [line.split(" -> ") for line in RECORDED.strip().splitlines()]
    test = {
        "interval": "15s",
        "input_series": [{"series": str(s), "values": s.values(1, 15)} for s in series],
        "promql_expr_test": [
            {
                "expr": name.strip(),
                "eval_time": "9m",
                "exp_samples": [
                    {
                        "labels": name.strip() + sample.rpartition(" ")[0],
                        "value": float(sample.rpartition(" ")[2]),
                    }
                ],
            }
            for name, sample in expected
        ],
    }
    done = promtool.run(promtool.write(tmp_path, RULES, [test]))
    assert done.returncode == 0, done.stdout + done.stderr
