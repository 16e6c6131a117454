"""The incident store as metrics: how often alerts fire, how soon they are acknowledged, what is a false positive.

Rules
- Everything is read from the store at each scrape, so a mark by hand and a restart of the tracker change
  nothing that was counted.
- A store that cannot be read is logged once for each row of failures, and only `app_incident_store_readable` is served.
- Bounded: the incidents of a week, and of these the last `_MOST_INCIDENTS` have series of their own.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cluster import log
from cluster.errors import NotFound
from cluster.metrics.catalogue import INCIDENT_SEVERITIES, RESPONSE_SEVERITIES, TRACKER_FAMILIES
from cluster.monitor.incidents import response_times
from cluster.monitor.incidents.response_times import Targets
from cluster.monitor.incidents.store import ALIVE_FACT, Incident, IncidentStore

_MOST_INCIDENTS: Final = 100
_FAMILIES: Final = {family.name: family for family in TRACKER_FAMILIES}
_READABLE: Final = "app_incident_store_readable"
_STATES: Final = ("firing", "acknowledged")


class IncidentCollector(Collector):
    """Reads the store in a folder at each scrape."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock
        self._is_failing = False

    def describe(self) -> Iterable[Metric]:
        """None: the registry would read the store to find out."""
        return ()

    def collect(self) -> list[Metric]:
        try:
            found = incident_metrics(self._folder, self._clock)
        except (NotFound, sqlite3.Error) as error:
            if not self._is_failing:
                self._is_failing = True
                log.get_logger().error("incident_metrics_not_read", reason=str(error))
            return [_gauge(_READABLE, [((), 0)])]
        self._is_failing = False
        return [*found, _gauge(_READABLE, [((), 1)])]


def _gauge(name: str, values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    """A gauge of the catalogue with its values, each after those of its labels."""
    family = _FAMILIES[name]
    made = GaugeMetricFamily(name, family.help, labels=list(family.labels))
    for labels, value in values:
        made.add_metric(labels, value)
    return made


def incident_metrics(folder: Path, clock: Callable[[], float] = time.time) -> list[Metric]:
    """The families of TRACKER_FAMILIES but that of the reading itself, from the store in a folder.

    Raises:
        NotFound: there is no store.
        sqlite3.Error: it cannot be read.
    """
    store = IncidentStore(folder, read_only=True)
    try:
        now = clock()
        week = response_times.fired_since(store, now - response_times.WEEK_SECONDS)
        still_open = store.open_incidents()
        targets = response_times.targets_of(store)
        ticked = float(store.fact(ALIVE_FACT) or 0.0)
    finally:
        store.close()
    fired = [one for one in week if one.has_fired and one.severity in INCIDENT_SEVERITIES]
    return [
        *_open(still_open),
        *_by_alert(fired, now, targets),
        *_each(fired[-_MOST_INCIDENTS:]),
        _gauge("app_tracker_last_tick_timestamp_seconds", [((), ticked)]),
    ]


def _open(incidents: Sequence[Incident]) -> Iterator[Metric]:
    count = Counter((one.severity, one.state) for one in incidents)
    yield _gauge(
        "app_incidents_open",
        (
            ((severity, state), count[severity, state])
            for severity in INCIDENT_SEVERITIES
            for state in _STATES
        ),
    )


def _by_alert(fired: Sequence[Incident], now: float, targets: Targets) -> Iterator[Metric]:
    rates = response_times.rates(fired, response_times.WEEK_SECONDS, now, targets)
    yield _gauge(
        "app_incidents_fired",
        (((one.alert, one.severity), one.firings) for one in rates),
    )
    yield _gauge(
        "app_incidents_false_positive",
        (((one.alert, one.severity), one.false_positives) for one in rates),
    )
    judged = [
        (one.severity, response_times.is_in_target(one, now, targets) is True)
        for one in fired
        if response_times.is_in_target(one, now, targets) is not None
    ]
    yield _gauge(
        "app_incidents_answered",
        (
            ((severity, result), judged.count((severity, result == "in_time")))
            for severity in RESPONSE_SEVERITIES
            for result in ("in_time", "late")
        ),
    )
    yield _gauge(
        "app_incident_target_seconds",
        (((severity,), targets[severity]) for severity in RESPONSE_SEVERITIES),
    )


def _each(incidents: Sequence[Incident]) -> Iterator[Metric]:
    times: dict[str, Callable[[Incident], float | None]] = {
        "app_incident_fired_timestamp_seconds": lambda one: one.firing_at,
        "app_incident_acknowledge_seconds": response_times.acknowledge_seconds,
        "app_incident_resolve_seconds": response_times.resolve_seconds,
    }
    for name, time_of in times.items():
        found = ((one, time_of(one)) for one in incidents)
        yield _gauge(
            name,
            ((_labels(one), seconds) for one, seconds in found if seconds is not None),
        )


def _labels(one: Incident) -> tuple[str, ...]:
    return (str(one.id), one.alertname, one.severity, one.labels.get("instance", ""))
