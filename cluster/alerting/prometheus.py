"""The HTTP API of Prometheus: rules and their alerts, targets, the value of an expression.

Rule: a function builds a request and reads its answer, without I/O; `Prometheus` sends them and blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cluster import durations
from cluster.alerting.http import ANSWERED_WITHIN_SECONDS, HttpRequest, HttpService, as_json

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
        is_settled: whether its list of alerts can be relied on: it was evaluated, without error.
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


def rules_request() -> HttpRequest[list[Rule]]:
    """Every alerting rule with its alerts, in the order of the rule files."""
    return HttpRequest("GET", "/api/v1/rules", as_json(_rules), {"type": "alert"})


def targets_request() -> HttpRequest[list[Target]]:
    """Every active scrape target."""
    return HttpRequest("GET", "/api/v1/targets", as_json(_targets), {"state": "active"})


def query_request(expression: str) -> HttpRequest[list[Sample]]:
    """The instant vector of an expression."""
    return HttpRequest("GET", "/api/v1/query", as_json(_samples), {"query": expression})


class Prometheus:
    """A Prometheus at `url`."""

    def __init__(self, url: str, timeout_seconds: float = ANSWERED_WITHIN_SECONDS) -> None:
        self.service: Final = HttpService(
            "Prometheus", url.rstrip("/"), _HINT, timeout_seconds=timeout_seconds
        )

    def rules(self) -> list[Rule]:
        """Every alerting rule with its alerts, in the order of the rule files."""
        return self.service.ask(rules_request())

    def targets(self) -> list[Target]:
        """Every active scrape target."""
        return self.service.ask(targets_request())

    def query(self, expression: str) -> list[Sample]:
        """The instant vector of an expression."""
        return self.service.ask(query_request(expression))

    def number(self, expression: str) -> float | None:
        """The only value of an expression; None if there is none."""
        samples = self.query(expression)
        return samples[0].value if samples else None


def _data(answer: Any) -> Any:
    if not isinstance(answer, dict) or answer.get("status") != "success":
        raise ValueError("no status success")
    return answer.get("data")


def _rules(answer: Any) -> list[Rule]:
    return [
        _rule(group["name"], rule)
        for group in _data(answer)["groups"]
        for rule in group["rules"]
        if rule["type"] == "alerting"
    ]


def _targets(answer: Any) -> list[Target]:
    return [_target(one) for one in _data(answer)["activeTargets"]]


def _samples(answer: Any) -> list[Sample]:
    return [Sample(one["metric"], float(one["value"][1])) for one in _data(answer)["result"]]


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
