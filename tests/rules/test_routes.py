"""Every alert reaches the receivers it should, by the routes as Alertmanager reads them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cluster.monitor.stack.render import Profile, render
from tests.rules import promtool
from tests.rules.promtool import DOCKER

ALERTMANAGER = DOCKER / "alertmanager.yml"
ONCALL, TEAM, INFRASTRUCTURE, DEADMAN = (
    "websocket-oncall",
    "websocket-team",
    "infrastructure-team",
    "dead-mans-switch",
)

# Written by hand, not derived: the receivers of each alert by the given routing tree.
RECEIVERS = {
    "NoActiveConnections": [ONCALL],
    "HighErrorRate": [ONCALL],
    "ServiceDown": [ONCALL],
    "HighMemoryUsage": [TEAM],
    "SlowShutdownTime": [TEAM],
    "LowMessageThroughput": [TEAM],
    "HighConnectionChurn": [TEAM],
    "DeploymentCompleted": [TEAM],
    "HighSessionCount": [TEAM],
    "HighCPUUsage": [TEAM, INFRASTRUCTURE],
    "HighDiskUsage": [TEAM, INFRASTRUCTURE],
    "WorkerCrashLooping": [TEAM],
    "EventLoopLag": [TEAM],
    "WorkerCPUSaturated": [TEAM],
    "SlowConsumers": [TEAM],
    "MetricsFilesCorrupt": [TEAM],
    "AppScrapeSlow": [TEAM],
    "BrokerDisconnected": [ONCALL],
    "BrokerDeaf": [ONCALL],
    "ConnectionCapacity": [TEAM],
    "FileDescriptorsExhausting": [TEAM],
    "MemoryWillHitLimit": [TEAM],
    "ReplicaLost": [TEAM],
    "ConnectionsUnbalanced": [TEAM],
    "HighClientErrorRate": [TEAM],
    "HighLogErrorRate": [TEAM],
    "ErrorBudgetFastBurn": [ONCALL],
    "HighRefusalRate": [TEAM],
    "HighAPIErrorRate": [TEAM],
    "TokenRefreshFailing": [TEAM],
    "SlowHandlers": [TEAM],
    "Watchdog": [DEADMAN],
    "RuleEvaluationFailures": [TEAM, INFRASTRUCTURE],
    "NotificationsFailing": [ONCALL, INFRASTRUCTURE],
    "AlertmanagerDown": [ONCALL, INFRASTRUCTURE],
    "NotConnectedToAlertmanager": [ONCALL, INFRASTRUCTURE],
    "NodeExporterDown": [TEAM, INFRASTRUCTURE],
}

GIVEN_ROUTE = {
    "group_by": ["alertname", "severity", "team"],
    "group_wait": "30s",
    "group_interval": "5m",
    "repeat_interval": "4h",
    "receiver": TEAM,
}
GIVEN_ROUTES = [
    {"matchers": ['severity = "critical"'], "receiver": ONCALL, "continue": True},
    {"matchers": ['severity = "warning"'], "receiver": TEAM, "continue": True},
    {"matchers": ['team = "infrastructure"'], "receiver": INFRASTRUCTURE, "continue": True},
]


def configuration() -> dict:
    return dict(yaml.safe_load(ALERTMANAGER.read_text()))


def amtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["amtool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def route_of(receivers: list[str], labels: dict[str, str], file: Path = ALERTMANAGER) -> int:
    pairs = [f"{key}={value}" for key, value in labels.items()]
    wanted = f"--verify.receivers={','.join(receivers)}"
    return amtool("config", "routes", "test", f"--config.file={file}", wanted, *pairs).returncode


def slack_of(receiver: str) -> dict:
    (found,) = [r for r in configuration()["receivers"] if r["name"] == receiver]
    return dict(found["slack_configs"][0])


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("routes")
    return render(DOCKER, target, profile=Profile(compress=15)).alertmanager


def test_every_alert_has_its_receivers_written_down():
    assert list(RECEIVERS) == list(promtool.alerts())


@pytest.mark.parametrize("alert", RECEIVERS)
def test_an_alert_reaches_its_receivers_and_no_other(alert: str, rendered: Path):
    labels = {"alertname": alert, **promtool.alerts()[alert]["labels"]}
    assert route_of(RECEIVERS[alert], labels) == 0
    assert route_of(RECEIVERS[alert], labels, rendered) == 0
    for other in (ONCALL, TEAM, INFRASTRUCTURE, DEADMAN):
        if [other] != RECEIVERS[alert]:
            assert route_of([other], labels) == 1


def test_the_given_routing_tree_is_kept_behind_the_watchdogs():
    route = configuration()["route"]
    watchdog, *routes = route.pop("routes")
    assert route == GIVEN_ROUTE
    assert routes == GIVEN_ROUTES
    assert watchdog["matchers"] == ['alertname = "Watchdog"']
    assert "continue" not in watchdog


@pytest.mark.parametrize(
    ("receiver", "channel", "icon", "title"),
    [
        (ONCALL, "#websocket-oncall", ":rotating_light:", "🚨 CRITICAL: "),
        (TEAM, "#websocket-alerts", ":warning:", ""),
        (INFRASTRUCTURE, "#infrastructure-alerts", ":gear:", ""),
    ],
)
def test_a_channel_has_its_icon_and_title(receiver: str, channel: str, icon: str, title: str):
    slack = slack_of(receiver)
    assert (slack["channel"], slack["icon_emoji"]) == (channel, icon)
    assert slack["title"] == title + '{{ template "slack.title" . }}'
    assert slack["text"] == '{{ template "slack.text" . }}'
    assert slack["send_resolved"] is True


def test_only_the_critical_reach_pagerduty():
    paged = [r["name"] for r in configuration()["receivers"] if "pagerduty_configs" in r]
    assert paged == [ONCALL]


def test_every_template_that_is_used_is_defined_and_renders():
    used = set(re.findall(r'template "([^"]+)"', ALERTMANAGER.read_text()))
    glob = DOCKER / "templates" / "*.tmpl"
    for name in used:
        text = f'{{{{ template "{name}" . }}}}'
        done = amtool("template", "render", f"--template.glob={glob}", f"--template.text={text}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_a_notification_lists_each_instance(tmp_path: Path):
    def alert(status: str, instance: str) -> dict:
        return {
            "status": status,
            "labels": {"alertname": "ServiceDown", "instance": instance},
            "annotations": {"description": f"{instance} is down", "summary": "Down"},
            "startsAt": "2024-05-06T07:08:09Z",
            "endsAt": "2024-05-06T07:18:09Z",
            "generatorURL": "http://p/",
        }

    data = tmp_path / "data.json"
    document = {
        "receiver": ONCALL,
        "status": "firing",
        "alerts": [alert("firing", "a:1"), alert("firing", "b:1"), alert("resolved", "c:1")],
        "groupLabels": {"alertname": "ServiceDown", "severity": "critical", "team": "websocket"},
        "commonLabels": {"alertname": "ServiceDown"},
        "commonAnnotations": {"summary": "Down", "runbook_url": "https://r.example/ServiceDown"},
        "externalURL": "http://am/",
    }
    data.write_text(json.dumps(document))

    def shown(name: str) -> str:
        return amtool(
            "template", "render", f"--template.glob={DOCKER / 'templates' / '*.tmpl'}",
            f'--template.text={{{{ template "{name}" . }}}}', f"--template.data={data}",
        ).stdout.strip()  # fmt: skip

    assert shown("slack.title") == "[FIRING:2] ServiceDown (critical, websocket)"
    assert shown("slack.text").splitlines() == [
        "*Down*",
        "• a:1 is down (`a:1`), since 2024-05-06 07:08:09 UTC",
        "• b:1 is down (`b:1`), since 2024-05-06 07:08:09 UTC",
        "Resolved:",
        "• c:1 is down (`c:1`), since 2024-05-06 07:08:09 UTC",
        "Runbook: https://r.example/ServiceDown",
    ]
    assert shown("slack.title_link") == "https://r.example/ServiceDown"
    assert shown("pagerduty.description") == "ServiceDown: Down (a:1 is down)"
    assert shown("alert.instances") == "a:1, b:1, c:1"


def inhibited(rules: list[dict]) -> Iterator[tuple[str, str]]:
    for rule in rules:
        (source,) = re.findall(r'alertname = "(\w+)"', str(rule["source_matchers"]))
        (targets,) = re.findall(r'alertname =~? "([\w|]+)"', str(rule["target_matchers"]))
        for target in targets.split("|"):
            yield source, target


def test_an_alert_is_inhibited_only_by_one_of_its_severity_or_above_for_the_same_team():
    alerts, severities = promtool.alerts(), ["info", "warning", "critical"]
    pairs = list(inhibited(configuration()["inhibit_rules"]))
    assert pairs
    for source, target in pairs:
        by, held = (alerts[name]["labels"]["severity"] for name in (source, target))
        assert severities.index(by) >= severities.index(held)
        assert alerts[source]["labels"]["team"] == alerts[target]["labels"]["team"]
