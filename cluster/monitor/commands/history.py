"""`monitor history`: incidents from the store, and rates for the reviews.

Targets are the response times: a critical alert should be acknowledged within 5 minutes, a warning
within 30, unless the tracker runs with other values. The time to resolve is shown and has no target.
"""

from __future__ import annotations

import json
import statistics
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from cluster import durations
from cluster.errors import UsageError
from cluster.monitor.commands import status
from cluster.monitor.endpoints import Endpoints
from cluster.monitor.incidents.store import TARGET_FACT, Incident, IncidentStore
from cluster.terminal_text import print_line, print_lines

Targets = Mapping[str, float]
TARGET_SECONDS: Final[Targets] = {"critical": 300.0, "warning": 1800.0}
_WEEK_SECONDS: Final = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Rate:
    """One alert over a period.

    Attributes:
        in_target: acknowledged, or resolved, within the response time; None without a target.
        median_*_seconds: over those that were acknowledged, or resolved.
    """

    alert: str
    severity: str
    firings: int
    per_week: float
    false_positives: int
    acknowledged: int
    in_target: int | None
    median_acknowledge_seconds: float | None
    median_resolve_seconds: float | None


def history(arguments: Namespace) -> int:
    """`monitor history`."""
    marks = arguments.false_positive is not None or arguments.true_positive is not None
    store = IncidentStore(Endpoints.of(arguments).data_dir, must_exist=True, read_only=not marks)
    try:
        for number, mark in ((arguments.false_positive, 1), (arguments.true_positive, 0)):
            if number is not None:
                return _mark(store, number, mark)
        span, targets = _span(arguments.since), targets_of(store)
        now = time.time()
        found = store.incidents(
            "COALESCE(firing_at, active_at) >= ? ORDER BY COALESCE(firing_at, active_at), id",
            now - span,
        )
    finally:
        store.close()
    found = [
        one
        for one in found
        if (one.has_fired or arguments.pending)
        and arguments.alert in (None, one.alertname)
        and one.severity != "none"
    ]
    if arguments.rates:
        _show_rates(rates(found, span, now, targets), as_json=arguments.json)
    elif arguments.json:
        print_lines(json.dumps([document(one, now, targets) for one in found], indent=2))
    else:
        _show(found, now, targets)
    return 0


def targets_of(store: IncidentStore) -> Targets:
    """The response times by severity that the tracker of this store uses."""
    stored = {name: store.fact(f"{TARGET_FACT}{name}") for name in TARGET_SECONDS}
    return {name: float(stored[name] or seconds) for name, seconds in TARGET_SECONDS.items()}


def _mark(store: IncidentStore, number: int, mark: int) -> int:
    incident = store.incident(number)
    with store.change():
        store.set(number, is_false_positive=mark)
        kind = "false_positive" if mark else "true_positive"
        store.record(time.time(), number, kind, "marked by hand")
    word = "a" if mark else "no"
    print_line(f"incident {number} ({incident.alertname}) is marked as {word} false positive")
    return 0


def _span(text: str) -> float:
    try:
        return durations.seconds_of(text)
    except ValueError as error:
        raise UsageError(f"--since: {error}") from None


def acknowledge_seconds(incident: Incident) -> float | None:
    """From firing to the acknowledgement."""
    if incident.acknowledged_at is None or incident.firing_at is None:
        return None
    return max(0.0, incident.acknowledged_at - incident.firing_at)


def resolve_seconds(incident: Incident) -> float | None:
    """From firing to the end of the incident."""
    if incident.resolved_at is None or incident.firing_at is None:
        return None
    return max(0.0, incident.resolved_at - incident.firing_at)


def is_in_target(incident: Incident, now: float, targets: Targets = TARGET_SECONDS) -> bool | None:
    """Whether it was acknowledged or resolved in time; None without a target or before it is due."""
    target = targets.get(incident.severity)
    if target is None or incident.firing_at is None:
        return None
    answers = [
        s for s in (acknowledge_seconds(incident), resolve_seconds(incident)) if s is not None
    ]
    if answers:
        return min(answers) <= target
    return None if now - incident.firing_at <= target else False


def document(incident: Incident, now: float, targets: Targets = TARGET_SECONDS) -> dict[str, Any]:
    """An incident as JSON."""
    return {
        **asdict(incident),
        "acknowledge_seconds": acknowledge_seconds(incident),
        "resolve_seconds": resolve_seconds(incident),
        "target_seconds": targets.get(incident.severity),
        "is_in_target": is_in_target(incident, now, targets),
    }


def _show(found: Sequence[Incident], now: float, targets: Targets) -> None:
    if not found:
        print_line("no alert fired in that time")
        return
    rows = [
        (
            str(one.id),
            durations.time_for_people(one.firing_at or one.active_at),
            one.severity,
            one.alertname,
            one.labels.get("instance", ""),
            one.state,
            _shown(acknowledge_seconds(one)),
            _shown(resolve_seconds(one)),
            {True: "yes", False: "NO", None: ""}[is_in_target(one, now, targets)],
            "false positive" if one.is_false_positive else "",
            " / ".join(t for t in (one.note, one.resolution if one.resolved_by else "") if t),
        )
        for one in found
    ]
    status.table(
        (
            *("id", "fired", "severity", "alert", "instance", "state"),
            *("acknowledged", "resolved", "in time", "mark", "note"),
        ),
        rows,
    )


def _shown(seconds: float | None) -> str:
    return "" if seconds is None else durations.duration_for_people(seconds)


def rates(
    found: Sequence[Incident], span: float, now: float, targets: Targets = TARGET_SECONDS
) -> list[Rate]:
    """One rate per alert, the most frequent first."""
    by_name: dict[str, list[Incident]] = {}
    for one in found:
        if one.has_fired:
            by_name.setdefault(one.alertname, []).append(one)
    made = [_rate(name, ones, span, now, targets) for name, ones in by_name.items()]
    return sorted(made, key=lambda rate: (-rate.firings, rate.alert))


def _rate(name: str, ones: Sequence[Incident], span: float, now: float, targets: Targets) -> Rate:
    acknowledged = [s for one in ones if (s := acknowledge_seconds(one)) is not None]
    resolved = [s for one in ones if (s := resolve_seconds(one)) is not None]
    judged = [answer for one in ones if (answer := is_in_target(one, now, targets)) is not None]
    return Rate(
        alert=name,
        severity=ones[-1].severity,
        firings=len(ones),
        per_week=len(ones) * _WEEK_SECONDS / span if span else 0.0,
        false_positives=sum(one.is_false_positive for one in ones),
        acknowledged=len(acknowledged),
        in_target=sum(judged) if judged else None,
        median_acknowledge_seconds=statistics.median(acknowledged) if acknowledged else None,
        median_resolve_seconds=statistics.median(resolved) if resolved else None,
    )


def _show_rates(made: Sequence[Rate], *, as_json: bool) -> None:
    if as_json:
        print_lines(json.dumps([asdict(rate) for rate in made], indent=2))
        return
    rows = [
        (
            rate.alert,
            rate.severity,
            str(rate.firings),
            f"{rate.per_week:.1f}",
            f"{rate.false_positives} ({100 * rate.false_positives / rate.firings:.0f} %)",
            str(rate.acknowledged),
            "-" if rate.in_target is None else f"{rate.in_target} of {rate.firings}",
            _shown(rate.median_acknowledge_seconds) or "-",
            _shown(rate.median_resolve_seconds) or "-",
        )
        for rate in made
    ]
    if not rows:
        print_line("no alert fired in that time")
        return
    status.table(
        (
            *("alert", "severity", "firings", "per week", "false positives", "acknowledged"),
            *("in time", "median to acknowledge", "median to resolve"),
        ),
        rows,
    )
