"""Finds the broken link of the chain when a step was not reached.

The chain: cause, metric, rule file, expression, threshold, Prometheus, Alertmanager, route, receiver.
Each function starts at the last step that was reached, and returns a sentence with what it observed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from cluster.alerting.alertmanager import ActiveAlert
from cluster.alerting.prometheus import Prometheus, Rule
from cluster.errors import ClusterError, NotAnswering
from cluster.monitor import endpoints
from cluster.monitor.stack.render import RULES_FILE, compressed, seconds
from loadtest.drilling.environment.cluster import MonitoredCluster
from loadtest.drilling.faults.injector import CannotProvoke
from loadtest.drilling.receivers import Receiver

_METRIC: Final = re.compile(
    r"\b((?:app|node|alertmanager|prometheus|scrape)_\w+|up)\b(?=\s*[{\[)]|\s)"
)
_DURATION: Final = re.compile(r"\b(?:\d+(?:ms|[smhdwy]))+\b")


def missing_rule(environment: MonitoredCluster, alert: str, rules: Iterable[Rule]) -> str:
    """Why Prometheus has no such alert."""
    count = len(list(rules))
    return (
        f"rule file: Prometheus has {count} alerting rules and none is called {alert}: is"
        f" {RULES_FILE} loaded?"
    )


def not_firing(environment: MonitoredCluster, alert: str, rule: Rule | None) -> str:
    """Why an alert does not fire although its fault was injected."""
    if rule is None:
        return missing_rule(environment, alert, environment.prometheus.rules())
    if rule.health != "ok":
        return f"rule: its evaluation fails: {rule.last_error}"
    missing = missing_metrics(environment.prometheus, rule.expression)
    if missing:
        return f"metric: Prometheus has no {' and no '.join(missing)}, which the rule reads"
    wanted = own_expression(alert, environment.compress)
    if wanted and _plain(wanted) != _plain(rule.expression):
        return (
            "rule: its expression is not the project's (a threshold or a window was changed):"
            f" {_plain(rule.expression)!r} instead of {_plain(wanted)!r}"
        )
    value = value_of(environment.prometheus, rule.expression)
    seen = "no value" if value is None else f"{value:g}"
    if rule.state == "pending":
        return f"rule: it is pending and does not fire; the value is {seen}"
    return f"cause: the rule is intact and its condition does not hold; the value is {seen}"


def not_at_alertmanager(environment: MonitoredCluster) -> str:
    """Why a firing alert does not reach Alertmanager."""
    try:
        found = environment.prometheus.number("prometheus_notifications_alertmanagers_discovered")
        errors = environment.prometheus.number("sum(prometheus_notifications_errors_total)")
        environment.alertmanager.alerts()
    except NotAnswering as error:
        return f"Alertmanager: {error}"
    if not found:
        return "Prometheus: it has discovered no Alertmanager"
    return (
        f"Prometheus: it has {found:g} Alertmanagers and {errors or 0:g} failed deliveries to them"
    )


def not_notified(environment: MonitoredCluster, alert: str, lacking: Iterable[Receiver]) -> str:
    """Why an alert that Alertmanager has does not reach its receivers."""
    where = ", ".join(" ".join(receiver) for receiver in lacking)
    try:
        found = [one for one in environment.alertmanager.alerts() if one.name == alert]
        failures = environment.prometheus.query(
            "sum by (integration) (alertmanager_notifications_failed_total) > 0"
        )
    except NotAnswering as error:
        return f"Alertmanager: {error}"
    if held := _suppression(found):
        return f"Alertmanager: the alert is suppressed: {held}"
    routed = sorted({receiver for one in found for receiver in one.receivers})
    failed = {sample.labels.get("integration", ""): sample.value for sample in failures}
    kinds = {receiver[0] for receiver in lacking}
    if broken := {kind: failed[kind] for kind in kinds if kind in failed}:
        counts = ", ".join(f"{kind} {count:g} times" for kind, count in broken.items())
        return f"receiver: nothing arrived at {where}; deliveries failed ({counts})"
    return f"route: nothing arrived at {where}; Alertmanager routes the alert to {', '.join(routed) or 'no receiver'}"


def _suppression(alerts: Iterable[ActiveAlert]) -> str:
    for one in alerts:
        if one.inhibited_by:
            return f"inhibited by another alert ({one.inhibited_by[0]})"
        if one.silenced_by:
            return f"silenced ({one.silenced_by[0]})"
    return ""


def missing_metrics(prometheus: Prometheus, expression: str) -> list[str]:
    """Metrics an expression reads, directly or through a recording rule, of which there is no series."""
    text = _plain(expression)
    for record, recorded in own_records(1.0).items():
        if record in text:
            text += " " + recorded
    names = sorted({found[1] for found in _METRIC.finditer(re.sub(r'"[^"]*"', "", text))})
    return [name for name in names if prometheus.number(f'count({{__name__="{name}"}})') is None]


def value_of(prometheus: Prometheus, expression: str) -> float | None:
    """The value that an alert compares, or that of the expression if it is no simple comparison."""
    found = comparison(expression)
    try:
        samples = prometheus.query(found[0] if found else expression)
    except NotAnswering:
        return None
    values = [sample.value for sample in samples if sample.value == sample.value]
    if not values:
        return None
    return min(values) if found and found[1] == "<" else max(values)


def value_text(prometheus: Prometheus, rule: Rule | None) -> str:
    """The value that the alert of a rule compares, for a message."""
    value = None if rule is None else value_of(prometheus, rule.expression)
    return "no value" if value is None else f"the value is {value:g}"


def comparison(expression: str) -> tuple[str, str, float] | None:
    """`left > 5` as ("left", ">", 5.0); None if the expression is no such thing as a whole."""
    text = re.sub(r"#[^\n]*", "", expression).strip()
    found = re.fullmatch(r"(.+?)\s*(==|>|<)\s*(-?[\d.]+)", text, re.DOTALL)
    if found is None or found[1].count("(") != found[1].count(")"):
        return None
    if re.search(r"\b(and|or|unless)\b", re.sub(r"\([^()]*\)", "", _without_depth(found[1]))):
        return None
    return found[1], found[2], float(found[3])


def _without_depth(text: str) -> str:
    """The text outside all parentheses."""
    depth, kept = 0, []
    for character in text:
        depth += character == "("
        if depth == 0:
            kept.append(character)
        depth -= character == ")"
    return "".join(kept)


def _plain(expression: str) -> str:
    """The expression on one line, without comments, with every duration in seconds."""
    text = re.sub(r"\s+", " ", re.sub(r"#[^\n]*", "", expression))
    text = _DURATION.sub(lambda found: f"{seconds(found[0]):g}s", text)
    return text.replace("( ", "(").replace(" )", ")").strip()


def text_of(error: Exception) -> str:
    """The text of an error that is written for users; the representation of any other."""
    return str(error) if isinstance(error, ClusterError | CannotProvoke) else repr(error)


def own_rules() -> list[dict[str, Any]]:
    """The project's own rules."""
    import yaml

    folder = endpoints.checkout_folder("docker")
    if folder is None:
        return []
    document = yaml.safe_load((folder / RULES_FILE).read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def own_expression(alert: str, compress: float) -> str:
    """The expression of the project's own rule, in compressed time; empty if there is none."""
    for rule in own_rules():
        if rule.get("alert") == alert:
            return compressed(rule["expr"], compress)
    return ""


def own_records(compress: float) -> dict[str, str]:
    """The project's recording rules."""
    return {r["record"]: compressed(r["expr"], compress) for r in own_rules() if "record" in r}
