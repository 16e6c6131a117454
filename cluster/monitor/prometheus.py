"""What Prometheus knows: rules and their alerts, targets, the value of an expression.

Rule: an answer is taken apart here and nowhere else; one that has not the documented shape is
`NotAnswering`, never a KeyError further up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cluster.monitor import durations
from cluster.monitor.asking import Service

_HINT: Final = "start it with `ws-cluster monitoring up`, or give its address with --prometheus-url"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert of one rule: a label set for which the condition holds."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    state: str
    active_at: float
    value: str

    @property
    def name(self) -> str:
        return self.labels.get("alertname", "")

    @property
    def severity(self) -> str:
        return self.labels.get("severity", "")


@dataclass(frozen=True, slots=True)
class Rule:
    """One alerting rule as Prometheus evaluates it.

    Attributes:
        is_settled: whether its list of alerts means something: it was evaluated, without error.
    """

    name: str
    group: str
    state: str
    health: str
    last_error: str
    last_evaluation: float
    for_seconds: float
    expression: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    alerts: tuple[Alert, ...] = ()

    @property
    def is_settled(self) -> bool:
        return self.health == "ok" and self.last_evaluation > 0


@dataclass(frozen=True, slots=True)
class Target:
    """One scrape target."""

    job: str
    instance: str
    url: str
    health: str
    last_error: str
    last_scrape: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One element of an instant vector."""

    labels: Mapping[str, str] = field(default_factory=dict)
    value: float = 0.0


class Prometheus:
    """The HTTP API of a Prometheus at `url`."""

    def __init__(self, url: str) -> None:
        self.service: Final = Service("Prometheus", url.rstrip("/"), _HINT)

    def rules(self) -> list[Rule]:
        """Every alerting rule with its alerts, in the order of the rule files."""
        path = "/api/v1/rules"
        data = self._data(path, {"type": "alert"})
        try:
            return [
                _rule(group["name"], rule)
                for group in data["groups"]
                for rule in group["rules"]
                if rule["type"] == "alerting"
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self.service.malformed(path, repr(error)) from None

    def targets(self) -> list[Target]:
        """Every active scrape target."""
        path = "/api/v1/targets"
        data = self._data(path, {"state": "active"})
        try:
            return [_target(one) for one in data["activeTargets"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self.service.malformed(path, repr(error)) from None

    def query(self, expression: str) -> list[Sample]:
        """The instant vector of an expression."""
        path = "/api/v1/query"
        data = self._data(path, {"query": expression})
        try:
            return [Sample(one["metric"], float(one["value"][1])) for one in data["result"]]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise self.service.malformed(path, repr(error)) from None

    def number(self, expression: str) -> float | None:
        """The only value of an expression; None if there is none."""
        samples = self.query(expression)
        return samples[0].value if samples else None

    def is_ready(self) -> bool:
        """Whether it serves; raises if it cannot be asked."""
        return "ready" in self.service.text("/-/ready").lower()

    def _data(self, path: str, params: dict[str, str]) -> Any:
        answer = self.service.get(path, params)
        if not isinstance(answer, dict) or answer.get("status") != "success":
            raise self.service.malformed(path, "no status success")
        return answer.get("data")


def _rule(group: str, rule: dict[str, Any]) -> Rule:
    return Rule(
        name=rule["name"],
        group=group,
        state=rule["state"],
        health=rule["health"],
        last_error=rule.get("lastError") or "",
        last_evaluation=durations.unix(rule["lastEvaluation"]),
        for_seconds=float(rule.get("duration") or 0),
        expression=rule["query"],
        labels=dict(rule.get("labels") or {}),
        annotations=dict(rule.get("annotations") or {}),
        alerts=tuple(_alert(alert) for alert in rule.get("alerts") or ()),
    )


def _alert(alert: dict[str, Any]) -> Alert:
    return Alert(
        labels=dict(alert["labels"]),
        annotations=dict(alert.get("annotations") or {}),
        state=alert["state"],
        active_at=durations.unix(alert["activeAt"]),
        value=str(alert.get("value", "")),
    )


def _target(one: dict[str, Any]) -> Target:
    labels = one["labels"]
    return Target(
        job=labels.get("job", ""),
        instance=labels.get("instance", ""),
        url=one["scrapeUrl"],
        health=one["health"],
        last_error=one.get("lastError") or "",
        last_scrape=durations.unix(one["lastScrape"]),
    )
