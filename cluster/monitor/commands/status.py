"""Commands that change nothing: status, check-alerts, alerts, rules, targets, runbook.

Rules
- An alert that is acknowledged, silenced or inhibited is shown and does not count in the exit code
  of check-alerts; nor does one of severity info or none.
- Prometheus says what fires. An alert that has not reached Alertmanager counts and is marked, because
  without a connection between the two no notification is sent.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Final

from cluster import durations
from cluster.alerting.alertmanager import AlertIndex, Alertmanager, Silence
from cluster.alerting.prometheus import Prometheus, Rule
from cluster.errors import NotAnswering, NotFound
from cluster.monitor import endpoints
from cluster.monitor.admin_client import AdminClient
from cluster.monitor.endpoints import Endpoints
from cluster.monitor.incidents.store import IncidentStore
from cluster.terminal_text import escaped, print_line, print_lines

SEVERITIES: Final = ("critical", "warning", "info", "none")
_CODES: Final = {"critical": 2, "warning": 1}
_OVERDUE_SECONDS: Final = 120.0
_APP: Final = '{job="websocket-app"}'
_NUMBERS: Final[Mapping[str, str]] = {
    "connections": f"sum(app_active_connections{_APP})",
    "capacity": f"sum(app_connection_capacity{_APP})",
    "workers": f"sum(app_workers_alive{_APP})",
    "sessions": f"max(app_sessions_tracked{_APP})",
    "replicas": 'count(up{job="websocket-app"} == 1)',
    "messages in/s": 'sum(rate(app_messages_total{direction="in",job="websocket-app"}[1m]))',
    "messages out/s": 'sum(rate(app_messages_total{direction="out",job="websocket-app"}[1m]))',
    "connects/s": f"sum(rate(app_connections_opened_total{_APP}[1m]))",
    "errors/min": f"sum(rate(app_errors_total{_APP}[5m])) * 60",
    "client errors/min": f"sum(rate(app_client_errors_total{_APP}[5m])) * 60",
    "restarts 1h": f"sum(increase(app_worker_restarts_total{_APP}[1h]))",
}
_ADMIN_METRICS: Final[Mapping[str, str]] = {
    "connections": "app_active_connections",
    "capacity": "app_connection_capacity",
    "workers": "app_workers_alive",
    "sessions": "app_sessions_tracked",
}


@dataclass(frozen=True, slots=True)
class Firing:
    """One alert as the commands show it.

    Attributes:
        state: pending, firing, acknowledged, silenced or inhibited.
    """

    alert: str
    severity: str
    team: str
    state: str
    since: float
    instance: str
    summary: str
    runbook: str
    note: str
    is_at_alertmanager: bool

    @property
    def counts(self) -> bool:
        """Whether an operator should act on it now."""
        return self.state == "firing"

    def line(self, now: float) -> str:
        """The alert on one line."""
        where = f" {self.instance}" if self.instance else ""
        note = f" ({self.note})" if self.note else ""
        lost = (
            "" if self.is_at_alertmanager or self.state == "pending" else " [not at Alertmanager]"
        )
        since = durations.duration_for_people(max(0.0, now - self.since))
        return f"{self.severity:<8} {self.state:<12} {since:>7}  {self.alert}{where}: {self.summary}{note}{lost}"


def firing(prometheus: Prometheus, alertmanager: Alertmanager) -> list[Firing]:
    """Every alert that is pending or fires, the most severe first."""
    known = {silence.id: silence for silence in alertmanager.silences()}
    index = AlertIndex(alertmanager.alerts())
    found = []
    for rule in prometheus.rules():
        for alert in rule.alerts:
            sent = index.find(alert.labels)
            state, note = alert.state, ""
            if sent is not None and state == "firing":
                by = [known[name] for name in sent.silenced_by if name in known]
                state, note = _suppression(by, bool(sent.inhibited_by))
            found.append(
                Firing(
                    alert=alert.name,
                    severity=alert.severity,
                    team=alert.labels.get("team", ""),
                    state=state,
                    since=alert.active_at,
                    instance=alert.labels.get("instance", ""),
                    summary=alert.annotations.get("summary", ""),
                    runbook=alert.annotations.get("runbook_url", ""),
                    note=note,
                    is_at_alertmanager=sent is not None,
                )
            )
    return sorted(found, key=lambda one: (_rank(one.severity), not one.counts, one.since))


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else 0


def _suppression(by: Sequence[Silence], is_inhibited: bool) -> tuple[str, str]:
    for silence in by:
        if silence.is_ack:
            return "acknowledged", f"{silence.author}: {silence.note}"
    if by:
        return "silenced", f"{by[0].author}: {by[0].comment}"
    return ("inhibited", "") if is_inhibited else ("firing", "")


def check_alerts(arguments: Namespace) -> int:
    """`monitor check-alerts`."""
    where = Endpoints.of(arguments)
    prometheus = Prometheus(where.prometheus)
    try:
        found = firing(prometheus, Alertmanager(where.alertmanager))
        if not any(one.counts and one.severity == "critical" for one in found):
            _check_rules(prometheus.rules())
    except NotAnswering as error:
        if not arguments.json:
            raise
        print_lines(
            json.dumps({"state": "unknown", "exit_code": 3, "reason": str(error)}, indent=2)
        )
        return error.exit_code
    code = max((_CODES.get(one.severity, 0) for one in found if one.counts), default=0)
    state = ("ok", "warning", "critical")[code]
    if arguments.json:
        alerts = [asdict(one) for one in found]
        print_lines(json.dumps({"state": state, "exit_code": code, "alerts": alerts}, indent=2))
        return code
    shown = [one for one in found if one.severity != "none"]
    count = sum(one.counts and one.severity in _CODES for one in shown)
    what = "nothing needs attention" if code == 0 else f"{count} need attention"
    now = time.time()
    # The exit code is right even if the reader has closed the output.
    with suppress(BrokenPipeError):
        print_line(f"{state.upper()}: {what}")
        for one in shown:
            print_line("  " + one.line(now))
    return code


def _check_rules(found: Sequence[Rule]) -> None:
    """Check that every rule was evaluated: without that, no alert means nothing.

    Raises:
        NotAnswering: there are no rules, or some were not evaluated.
    """
    if not found:
        raise NotAnswering("Prometheus has no alert rules: start it with docker/prometheus.yml")
    lost = sorted(rule.name for rule in found if not rule.is_settled)
    if lost:
        raise NotAnswering(
            f"Prometheus has not evaluated {', '.join(lost[:5])}{' …' if len(lost) > 5 else ''}:"
            " `ws-cluster monitor rules` says why"
        )


def alerts(arguments: Namespace) -> int:
    """`monitor alerts`."""
    where = Endpoints.of(arguments)
    Alertmanager(where.alertmanager).alerts()
    print_line(where.alertmanager)
    if not arguments.prints and sys.stdout.isatty() and _has_display():
        import webbrowser

        webbrowser.open(where.alertmanager)
    return 0


def _has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def rules(arguments: Namespace) -> int:
    """`monitor rules`."""
    found = Prometheus(Endpoints.of(arguments).prometheus).rules()
    if arguments.alert:
        _show_rule(named(found, arguments.alert))
        return 0
    now = time.time()
    rows = [
        (
            rule.group,
            rule.name,
            rule.labels.get("severity", ""),
            rule.state,
            rule.health,
            f"{durations.duration_for_people(now - rule.last_evaluation)} ago"
            if rule.last_evaluation
            else "not yet",
            rule.last_error,
        )
        for rule in found
    ]
    table(("group", "alert", "severity", "state", "health", "evaluated", "error"), rows)
    return 0


def _show_rule(rule: Rule) -> None:
    facts = {
        "alert": f"{rule.name} ({rule.group})",
        "state": f"{rule.state}, health {rule.health} {rule.last_error}".rstrip(),
        "labels": ", ".join(f"{name}={value}" for name, value in rule.labels.items()),
        "for": durations.duration_for_people(rule.for_seconds),
        "evaluated": durations.time_for_people(rule.last_evaluation),
        "expression": "\n             ".join(map(escaped, rule.expression.split("\n"))),
        "summary": rule.annotations.get("summary", ""),
        "runbook": rule.annotations.get("runbook_url", ""),
    }
    for name, fact in facts.items():
        # The expression is the only fact with lines of its own.
        (print_lines if name == "expression" else print_line)(f"{name:<12} {fact}")
    for alert in rule.alerts:
        print_line(
            f"{alert.state:<12} since {durations.time_for_people(alert.active_at)}, value {alert.value}"
        )


def named(found: Iterable[Rule], name: str) -> Rule:
    """The rule of that name.

    Raises:
        NotFound: if there is none; the text names the nearest one.
    """
    by_name = {rule.name: rule for rule in found}
    if name in by_name:
        return by_name[name]
    close = difflib.get_close_matches(name, by_name, 1, 0.5)
    hint = f"did you mean {close[0]}?" if close else "`ws-cluster monitor rules` lists them"
    raise NotFound(f"no alert is called {name}: {hint}")


def targets(arguments: Namespace) -> int:
    """`monitor targets`."""
    now = time.time()
    rows = [
        (
            one.job,
            one.instance,
            one.health,
            f"{durations.duration_for_people(now - one.last_scrape)} ago"
            if one.last_scrape
            else "not yet",
            one.url,
            one.last_error,
        )
        for one in Prometheus(Endpoints.of(arguments).prometheus).targets()
    ]
    table(("job", "instance", "health", "scraped", "address", "error"), rows)
    return 0


def runbook(arguments: Namespace) -> int:
    """`monitor runbook`."""
    name = arguments.alert
    docs = endpoints.checkout_folder("docs")
    page = docs / "runbooks" / f"{name}.md" if docs and name.isidentifier() else None
    is_here = page is not None and page.is_file()
    try:
        rule = named(Prometheus(Endpoints.of(arguments).prometheus).rules(), name)
        url = rule.annotations.get("runbook_url", "")
    except NotAnswering:
        if not is_here:
            raise
        url = ""
    if is_here and page is not None and not arguments.url:
        print_lines(page.read_text(encoding="utf-8").rstrip())
        return 0
    address = str(page) if is_here and "://" not in url else url
    if not address:
        raise NotFound(f"the rule {name} names no runbook: give it a runbook_url")
    print_line(address)
    return 0


# --- status ------------------------------------------------------------------------------


def status(arguments: Namespace) -> int:
    """`monitor status`: shows what can be known; the exit code says whether every service answered."""
    where = Endpoints.of(arguments)
    prometheus, alertmanager = Prometheus(where.prometheus), Alertmanager(where.alertmanager)
    admin = AdminClient(where.admin)
    faults = _show_cluster(admin)
    faults += _show_numbers(prometheus, admin)
    faults += _notification_faults(where)
    try:
        found = [one for one in firing(prometheus, alertmanager) if one.severity != "none"]
    except NotAnswering as error:
        faults.append(str(error))
    else:
        print_line(f"alerts       {_counts(found)}")
        now = time.time()
        for one in found:
            print_line("  " + one.line(now))
    for fault in dict.fromkeys(faults):
        print_line(f"ws-cluster: {fault}", sys.stderr)
    return NotAnswering.exit_code if faults else 0


def _notification_faults(where: Endpoints) -> list[str]:
    """What the tracker could not deliver to Slack or PagerDuty."""
    try:
        store = IncidentStore(where.data_dir, read_only=True)
    except NotFound:
        return []
    try:
        lost = store.undelivered(time.time() - _OVERDUE_SECONDS)
    finally:
        store.close()
    if not lost:
        return []
    target, reason = lost[0]
    fault = (
        f"{len(lost)} notifications of the incident tracker were not delivered; the last one, to"
        f" {target}: {reason}; `ws-cluster monitor logs tracker` shows all"
    )
    return [fault]


def _show_cluster(admin: AdminClient) -> list[str]:
    try:
        version = admin.health()["version"]
        state = admin.readiness()
    except NotAnswering as error:
        print_line("cluster      unknown")
        return [str(error)]
    print_line(
        f"cluster      {'ready' if state.is_ready else 'NOT READY: ' + state.reason} ({version})"
    )
    for name, child in state.children.items():
        print_line(f"  {name:<10} {child}")
    return []


def _show_numbers(prometheus: Prometheus, admin: AdminClient) -> list[str]:
    try:
        numbers = {name: prometheus.number(query) for name, query in _NUMBERS.items()}
        source = "whole cluster, from Prometheus"
        faults = []
    except NotAnswering as error:
        faults, source = [str(error)], "this machine only, from its admin port"
        try:
            totals = admin.totals()
        except NotAnswering as second:
            return [*faults, str(second)]
        numbers = {name: totals.get(metric) for name, metric in _ADMIN_METRICS.items()}
    print_line(f"numbers      {source}")
    for name, value in numbers.items():
        print_line(f"  {name:<18} {_number(value):>10}")
    return faults


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.2f}"


def _counts(found: Sequence[Firing]) -> str:
    if not found:
        return "none"
    counts: dict[str, int] = {}
    for one in found:
        name = f"{one.severity} {one.state}"
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{count} {name}" for name, count in counts.items())


# --- print -------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns as wide as needed; columns without a value are left out."""
    lines = [tuple(escaped(cell) for cell in row) for row in (head, *rows)]
    used = [i for i in range(len(head)) if any(row[i] for row in lines[1:])] or list(
        range(len(head))
    )
    widths = [max(len(line[i]) for line in lines) for i in used]
    for line in lines:
        cells = (f"{line[i]:<{width}}" for i, width in zip(used, widths, strict=True))
        print_line("  ".join(cells).rstrip())
