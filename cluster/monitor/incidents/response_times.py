"""How soon incidents were acknowledged and resolved, and how often alerts fired: what reviews look at.

Targets are the response times: a critical alert should be acknowledged within 5 minutes, a warning
within 30, unless the tracker runs with other values. The time to resolve is shown and has no target.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cluster.monitor.incidents.store import TARGET_FACT, Incident, IncidentStore

Targets = Mapping[str, float]
TARGET_SECONDS: Final[Targets] = {"critical": 300.0, "warning": 1800.0}
WEEK_SECONDS: Final = 7 * 86400.0


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


def fired_since(store: IncidentStore, at: float) -> list[Incident]:
    """The incidents that became pending or fired since then, in that order."""
    return store.incidents(
        "COALESCE(firing_at, active_at) >= ? ORDER BY COALESCE(firing_at, active_at), id", at
    )


def targets_of(store: IncidentStore) -> Targets:
    """The response times by severity that the tracker of this store uses."""
    stored = {name: store.fact(f"{TARGET_FACT}{name}") for name in TARGET_SECONDS}
    return {name: float(stored[name] or seconds) for name, seconds in TARGET_SECONDS.items()}


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
        per_week=len(ones) * WEEK_SECONDS / span if span else 0.0,
        false_positives=sum(one.is_false_positive for one in ones),
        acknowledged=len(acknowledged),
        in_target=sum(judged) if judged else None,
        median_acknowledge_seconds=statistics.median(acknowledged) if acknowledged else None,
        median_resolve_seconds=statistics.median(resolved) if resolved else None,
    )
