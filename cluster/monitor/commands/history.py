"""`monitor history`: incidents from the store, and rates for the reviews."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cluster import durations
from cluster.errors import UsageError
from cluster.monitor.commands import status
from cluster.monitor.endpoints import Endpoints
from cluster.monitor.incidents.response_times import (
    TARGET_SECONDS,
    Rate,
    Targets,
    acknowledge_seconds,
    fired_since,
    is_in_target,
    rates,
    resolve_seconds,
    targets_of,
)
from cluster.monitor.incidents.store import Incident, IncidentStore
from cluster.terminal_text import print_line, print_lines


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
        found = fired_since(store, now - span)
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
