"""Which alerts are pending, active or resolved, and what the indicator shows.

Rules
- Prometheus says what is pending and active now, and, of its own records, what was active in the
  last quarter of an hour; Alertmanager says what is silenced or acknowledged. Nothing is
  remembered here, so every viewer and every replica sees the same.
- The indicator: red while a critical alert is active that nobody has silenced; amber while any
  other alert that calls somebody is active, be it silenced, or a critical one is pending; green only if both
  services answered. Without one of them it is unknown, unless an alert is known to be critical.
- An alert of severity `info` calls nobody. One of severity `none` (the watchdog) is meant to be
  active: it is listed only when it is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from cluster.console.alertmanager import ACK_MARK
from cluster.console.asking import Service, Unanswered

RESOLVED_SECONDS: Final = 900
_RESOLVED: Final = f'max_over_time(timestamp(ALERTS{{alertstate="firing"}})[{RESOLVED_SECONDS}s:])'
_MOST_ALERTS: Final = 200
_LONGEST_TEXT: Final = 2000
_STATES: Final = {"firing": "active", "pending": "pending"}
_ORDER: Final = {"active": 0, "pending": 1, "resolved": 2}
_SEVERITIES: Final = {"critical": 0, "warning": 1, "info": 2}
_CALLS: Final = ("critical", "warning")
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
    """What the two services said; an error text stands for what is missing."""

    rules: Sequence[Document] = ()
    resolved: Sequence[Document] = ()
    alerts: Sequence[Document] = ()
    silences: Sequence[Document] = ()
    errors: dict[str, str] = field(default_factory=dict)


async def collect(prometheus: Service, alertmanager: Service) -> Document:
    """Ask both at once; whoever does not answer is named in the document."""
    answers = Answers()
    asked = {
        "prometheus": _ask_prometheus(prometheus, answers),
        "alertmanager": _ask_alertmanager(alertmanager, answers),
    }
    results = await asyncio.gather(*asked.values(), return_exceptions=True)
    for name, result in zip(asked, results, strict=True):
        if isinstance(result, Unanswered):
            answers.errors[name] = str(result)
        elif isinstance(result, BaseException):
            raise result
    return _document(answers)


async def _ask_prometheus(service: Service, answers: Answers) -> None:
    rules, resolved = await asyncio.gather(
        service.get("/api/v1/rules", type="alert"), service.get("/api/v1/query", query=_RESOLVED)
    )
    try:
        found = [rule for group in rules["data"]["groups"] for rule in group["rules"]]
        alerts = [_of_prometheus(alert) for rule in found for alert in rule.get("alerts") or ()]
        links = {rule["name"]: (rule.get("annotations") or {}).get("runbook_url") for rule in found}
        ended = [_ended(sample, links) for sample in resolved["data"]["result"]]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise service.senseless(error) from None
    if not found:
        raise Unanswered("Prometheus has no alert rules: start it with docker/prometheus.yml")
    answers.rules, answers.resolved = alerts, ended


async def _ask_alertmanager(service: Service, answers: Answers) -> None:
    alerts, silences = await asyncio.gather(
        service.get("/api/v2/alerts"), service.get("/api/v2/silences")
    )
    try:
        known = [_of_alertmanager(alert) for alert in alerts]
        active = [_silence(one) for one in silences if one["status"]["state"] == "active"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise service.senseless(error) from None
    answers.alerts, answers.silences = known, active


# --- reading answers ---------------------------------------------------------------------


def _alert(labels: Any, annotations: Any, state: str, since: float) -> Document:
    texts = {str(name): str(text)[:_LONGEST_TEXT] for name, text in dict(annotations or {}).items()}
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


def _of_prometheus(alert: Document) -> Document:
    since = _unix(alert["activeAt"])
    return _alert(alert["labels"], alert.get("annotations"), _STATES[alert["state"]], since)


def _ended(sample: Document, links: Mapping[str, Any]) -> Document:
    labels = {n: v for n, v in sample["metric"].items() if n not in ("alertstate", "__name__")}
    link = {"runbook_url": links.get(labels.get("alertname", "")) or ""}
    return _alert(labels, link, "resolved", float(sample["value"][1]))


def _of_alertmanager(alert: Document) -> Document:
    since = _unix(alert["startsAt"])
    found = _alert(alert["labels"], alert.get("annotations"), "active", since)
    found["silenced_by"] = [str(one) for one in alert["status"].get("silencedBy") or ()]
    return found


def _silence(one: Document) -> Document:
    matchers = [
        (m["name"], m["value"], bool(m["isRegex"]), m.get("isEqual", True)) for m in one["matchers"]
    ]
    comment = str(one["comment"])[:_LONGEST_TEXT]
    return {
        "id": str(one["id"]),
        "is_ack": comment.startswith(ACK_MARK),
        "note": comment.removeprefix(ACK_MARK),
        "author": str(one["createdBy"])[:_LONGEST_TEXT],
        "ends_at": _unix(one["endsAt"]),
        # Regular expressions are Alertmanager's to judge: for those we take its word.
        "equals": None
        if any(is_regex or not is_equal for _, _, is_regex, is_equal in matchers)
        else {str(name): str(value) for name, value, _, _ in matchers},
    }


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


# --- putting together --------------------------------------------------------------------


def _document(answers: Answers) -> Document:
    now = list(answers.rules) if "prometheus" not in answers.errors else list(answers.alerts)
    known = {_key(alert) for alert in now}
    alerts = now + [alert for alert in answers.resolved if _key(alert) not in known]
    for alert in alerts:
        alert["silences"] = _silences_of(alert, answers)
        alert.pop("silenced_by", None)
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


def _silences_of(alert: Document, answers: Answers) -> list[Document]:
    """The silences on an alert: those Alertmanager names, and those whose labels are its own."""
    labels = alert["labels"]
    known = _counterpart(labels, answers.alerts)
    named = set(known.get("silenced_by", ())) if known is not None else set()
    return [
        {name: value for name, value in silence.items() if name != "equals"}
        for silence in answers.silences
        if silence["id"] in named
        or (silence["equals"] is not None and _fulfils(labels, silence["equals"]))
    ]


def _fulfils(labels: Mapping[str, str], equals: Mapping[str, str]) -> bool:
    """Whether labels are what a silence wants; one that is missing is empty."""
    return all(labels.get(name, "") == value for name, value in equals.items())


def _counterpart(labels: Mapping[str, str], alerts: Sequence[Document]) -> Document | None:
    """Alertmanager's own of Prometheus' alert: with the external labels that every alert has."""
    sets = [set(one["labels"].items()) for one in alerts]
    everywhere = set.intersection(*sets) if sets else set()
    for wanted in (set(labels.items()), set(labels.items()) | everywhere):
        for one, own in zip(alerts, sets, strict=True):
            if own == wanted:
                return one
    return None


def _counts(alerts: Iterable[Document]) -> dict[str, int]:
    counts = dict.fromkeys(_COUNTED, 0)
    for alert in alerts:
        severity = alert["severity"]
        if alert["state"] == "pending" and severity in _SEVERITIES:
            counts["pending"] += 1
            counts["pending_critical"] += severity == "critical"
        elif alert["state"] == "active" and severity in _SEVERITIES:
            counts[_counted_as(alert) if severity in _CALLS else severity] += 1
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
    calling = ("warning", "acknowledged", "silenced", "pending_critical")
    return "amber" if any(counts[name] for name in calling) else "green"
