"""The routing tree is read as Alertmanager reads it."""

from __future__ import annotations

import hashlib

import pytest

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


def test_an_alert_without_a_matching_route_stays_at_the_root():
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
def test_a_tree_that_cannot_be_read_is_broken(text: str):
    with pytest.raises(BrokenRouting):
        Routing(text).groups({})
