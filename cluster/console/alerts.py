"""Which alerts are pending, active or resolved, and what the indicator shows.

Rules
- Prometheus says what is pending and active now, and, from its own records, what was active in the
  last 15 minutes; Alertmanager says what is silenced or acknowledged. Nothing is remembered here, so
  every viewer and every replica sees the same.
- The indicator: red while a critical alert is active that is not silenced; amber while any other
  alert that notifies a person is active, even if silenced, or a critical one is pending; green only
  if both services answered. Without one of them it is unknown, unless an alert is known to be
  critical.
- An alert of severity `info` notifies no person. One of severity `none` (the watchdog) is meant to be
  active: it is listed only when it is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cluster.alerting.alertmanager import (
    ActiveAlert,
    AlertIndex,
    Silence,
    alerts_request,
    silences_request,
)
from cluster.alerting.async_http import AsyncHttpService
from cluster.alerting.prometheus import Alert, Rule, Sample, query_request, rules_request
from cluster.errors import NotAnswering

RESOLVED_SECONDS: Final = 900
_RESOLVED: Final = f'max_over_time(timestamp(ALERTS{{alertstate="firing"}})[{RESOLVED_SECONDS}s:])'
_MOST_ALERTS: Final = 200
_LONGEST_TEXT: Final = 2000
_STATES: Final = {"firing": "active", "pending": "pending"}
_ORDER: Final = {"active": 0, "pending": 1, "resolved": 2}
_SEVERITIES: Final = {"critical": 0, "warning": 1, "info": 2}
_NOTIFYING: Final = ("critical", "warning")
_COUNTED: Final = (
    "critical",
    "warning",
    "info",
    "pending",
    "pending_critical",
    "acknowledged",
    "silenced",
)

Document = dict[str, Any]


@dataclass(slots=True)
class Answers:
    """What the two services answered; an error text stands for what is missing."""

    rules: Sequence[Rule] = ()
    resolved: Sequence[Sample] = ()
    alerts: Sequence[ActiveAlert] = ()
    silences: Sequence[Silence] = ()
    errors: dict[str, str] = field(default_factory=dict)


async def collect(prometheus: AsyncHttpService, alertmanager: AsyncHttpService) -> Document:
    """Ask both at once; the document names each service that does not answer."""
    answers = Answers()
    asked = {
        "prometheus": _ask_prometheus(prometheus, answers),
        "alertmanager": _ask_alertmanager(alertmanager, answers),
    }
    results = await asyncio.gather(*asked.values(), return_exceptions=True)
    for name, result in zip(asked, results, strict=True):
        if isinstance(result, NotAnswering):
            answers.errors[name] = str(result)
        elif isinstance(result, BaseException):
            raise result
    return _document(answers)


async def _ask_prometheus(service: AsyncHttpService, answers: Answers) -> None:
    rules, resolved = await asyncio.gather(
        service.ask(rules_request()), service.ask(query_request(_RESOLVED))
    )
    if not rules:
        raise NotAnswering("Prometheus has no alert rules: start it with docker/prometheus.yml")
    answers.rules, answers.resolved = rules, resolved


async def _ask_alertmanager(service: AsyncHttpService, answers: Answers) -> None:
    alerts, silences = await asyncio.gather(
        service.ask(alerts_request()), service.ask(silences_request())
    )
    answers.alerts = alerts
    answers.silences = [one for one in silences if one.state == "active"]


# --- alerts and silences as the page gets them -------------------------------------------


def _alert(
    labels: Mapping[str, str], annotations: Mapping[str, str], state: str, since: float
) -> Document:
    texts = {str(name): str(text)[:_LONGEST_TEXT] for name, text in annotations.items()}
    return {
        "name": str(labels.get("alertname", "")),
        "severity": str(labels.get("severity", "")),
        "team": str(labels.get("team", "")),
        "state": state,
        "since": since,
        "summary": texts.get("summary", ""),
        "description": texts.get("description", ""),
        "runbook": texts.get("runbook_url", ""),
        "labels": {str(name): str(value) for name, value in labels.items()},
        "silences": [],
    }


def _of_prometheus(alert: Alert) -> Document:
    state = _STATES.get(alert.state, "pending")
    return _alert(alert.labels, alert.annotations, state, alert.active_at)


def _of_alertmanager(alert: ActiveAlert) -> Document:
    return _alert(alert.labels, alert.annotations, "active", alert.starts_at)


def _resolved(sample: Sample, links: Mapping[str, str]) -> Document:
    labels = {n: v for n, v in sample.labels.items() if n not in ("alertstate", "__name__")}
    link = {"runbook_url": links.get(labels.get("alertname", ""), "")}
    return _alert(labels, link, "resolved", sample.value)


def _silence(silence: Silence) -> Document:
    return {
        "id": silence.id,
        "is_ack": silence.is_ack,
        "note": silence.note[:_LONGEST_TEXT],
        "author": silence.author[:_LONGEST_TEXT],
        "ends_at": silence.ends_at,
    }


# --- the document ------------------------------------------------------------------------


def _document(answers: Answers) -> Document:
    if "prometheus" in answers.errors:
        now = [_of_alertmanager(alert) for alert in answers.alerts]
    else:
        now = [_of_prometheus(alert) for rule in answers.rules for alert in rule.alerts]
    known = {_key(alert) for alert in now}
    links = {rule.name: rule.annotations.get("runbook_url", "") for rule in answers.rules}
    resolved = [_resolved(sample, links) for sample in answers.resolved]
    alerts = now + [alert for alert in resolved if _key(alert) not in known]
    index = AlertIndex(answers.alerts)
    for alert in alerts:
        silences = _silences_of(alert["labels"], index, answers.silences)
        alert["silences"] = [_silence(one) for one in silences]
    alerts = [a for a in alerts if (a["severity"], a["state"]) != ("none", "active")]
    alerts.sort(key=_rank)
    counts = _counts(alerts)
    return {
        "level": _level(counts, answers.errors),
        "counts": counts,
        "errors": answers.errors,
        "alerts": alerts[:_MOST_ALERTS],
        "left_out": max(0, len(alerts) - _MOST_ALERTS),
    }


def _key(alert: Document) -> frozenset[tuple[str, str]]:
    return frozenset(alert["labels"].items())


def _rank(alert: Document) -> tuple[int, int, float]:
    severity = _SEVERITIES.get(alert["severity"], len(_SEVERITIES))
    return _ORDER[alert["state"]], severity, -alert["since"]


def _silences_of(
    labels: Mapping[str, str], index: AlertIndex, silences: Sequence[Silence]
) -> list[Silence]:
    """The silences on an alert: those Alertmanager names, and those whose labels are its own.

    Regular expressions are RE2's: for a silence with one, only Alertmanager's word counts.
    """
    known = index.find(labels)
    named = known.silenced_by if known is not None else ()
    return [
        silence
        for silence in silences
        if silence.id in named
        or (silence.literal_labels is not None and all(m.holds(labels) for m in silence.matchers))
    ]


def _counts(alerts: Iterable[Document]) -> dict[str, int]:
    counts = dict.fromkeys(_COUNTED, 0)
    for alert in alerts:
        severity = alert["severity"]
        if alert["state"] == "pending" and severity in _SEVERITIES:
            counts["pending"] += 1
            counts["pending_critical"] += severity == "critical"
        elif alert["state"] == "active" and severity in _SEVERITIES:
            counts[_counted_as(alert) if severity in _NOTIFYING else severity] += 1
    return counts


def _counted_as(alert: Document) -> str:
    if any(silence["is_ack"] for silence in alert["silences"]):
        return "acknowledged"
    return "silenced" if alert["silences"] else str(alert["severity"])


def _level(counts: Mapping[str, int], errors: Mapping[str, str]) -> str:
    if counts["critical"]:
        return "red"
    if errors:
        return "unknown"
    notifying = ("warning", "acknowledged", "silenced", "pending_critical")
    return "amber" if any(counts[name] for name in notifying) else "green"
