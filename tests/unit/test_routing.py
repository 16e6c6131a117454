"""The routing tree is read as Alertmanager reads it, and durations as people write them."""

from __future__ import annotations

import hashlib

import pytest

from cluster.monitor import durations
from cluster.monitor.alertmanager import Matcher, matcher
from cluster.monitor.incidents.routing import BrokenRouting, Routing
from tests.unit.monitor_services import ROUTES

NESTED = """
route:
  receiver: all
  group_by: ["..."]
  routes:
    - match: {team: infrastructure}
      receiver: infra
      continue: true
      routes:
        - matchers: ['{severity=~"crit.*|page",zone!="test"}']
          group_by: [zone]
          group_interval: 1h30m
    - match_re: {severity: warn.*}
receivers:
  - name: all
  - name: infra
    pagerduty_configs: [{}]
"""


def test_a_critical_alert_is_paged_under_the_hash_of_its_group():
    labels = {"alertname": "ServiceDown", "severity": "critical", "team": "websocket", "x": "y"}
    key = (
        '{}/{severity="critical"}:{alertname="ServiceDown", severity="critical", team="websocket"}'
    )
    routes = Routing(ROUTES)
    assert [group.key for group in routes.groups(labels)] == [key]
    assert routes.dedup_keys(labels) == [hashlib.sha256(key.encode()).hexdigest()]
    assert [c.settings["channel"] for c in routes.slack_channels(labels)] == ["#websocket-oncall"]


def test_an_alert_that_no_route_takes_stays_at_the_root():
    [group] = Routing(ROUTES).groups({"alertname": "A", "severity": "info"})
    assert group.receiver == "websocket-team"
    assert group.key == '{}:{alertname="A", severity="info"}'


def test_routes_nest_inherit_and_continue():
    routes = Routing(NESTED)
    found = routes.groups({"team": "infrastructure", "severity": "critical", "zone": 'a"b'})
    assert [(group.receiver, group.key) for group in found] == [
        (
            "infra",
            '{}/{team="infrastructure"}/{severity=~"crit.*|page",zone!="test"}:{zone="a\\"b"}',
        )
    ]
    found = routes.groups({"team": "infrastructure", "severity": "warning"})
    assert [group.receiver for group in found] == ["infra", "all"]
    assert routes.group_interval_seconds == 5400
    assert routes.repeat_interval_seconds == 4 * 3600


@pytest.mark.parametrize("text", ["", "route: [", "a: 1", "route: {matchers: [1], receiver: x}"])
def test_a_tree_that_cannot_be_understood_is_said_to_be_broken(text: str):
    with pytest.raises(BrokenRouting):
        Routing(text).groups({})


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("ServiceDown", Matcher("alertname", "ServiceDown")),
        ("instance=a:8001", Matcher("instance", "a:8001")),
        ('team != "web socket"', Matcher("team", "web socket", is_equal=False)),
        ("severity=~crit.*", Matcher("severity", "crit.*", is_regex=True)),
        ("severity!~a|b", Matcher("severity", "a|b", is_regex=True, is_equal=False)),
    ],
)
def test_matchers_are_written_as_amtool_writes_them(text: str, made: Matcher):
    assert matcher(text) == made
    assert matcher(str(made)) == made


@pytest.mark.parametrize("text", ["", "a b", "=x", "a=~["])
def test_what_is_no_matcher_is_refused(text: str):
    with pytest.raises(ValueError, match=r"no matcher|regular expression"):
        matcher(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30m", 1800), ("1h30m", 5400), ("500ms", 0.5), ("0s", 0)]
)
def test_durations(text: str, seconds: float):
    assert durations.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5", "5 m", "1h 30m", "nan", "inf"])
def test_what_is_no_duration_is_refused(text: str):
    with pytest.raises(ValueError, match="is no duration"):
        durations.seconds_of(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (90, "1m30s"), (660, "11m"), (3600, "1h"), (100000, "1d3h")],
)
def test_stretches_are_short(seconds: float, text: str):
    assert durations.stretch(seconds) == text
