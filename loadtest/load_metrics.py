"""The metrics of a load test, from its ledger and Locust's statistics, for Prometheus.

Rule: a ledger is counted anew at each scrape; nothing is counted a second time beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import Metric

from loadtest.families import LEDGER_FAULTS, LOAD_FAMILIES, PUBLICATION_RESULTS
from loadtest.ledger import Latencies
from loadtest.metrics_server import filled, filled_histogram

_FAMILIES: Final = {family.name: family for family in LOAD_FAMILIES}


def load_metrics(summary: Mapping[str, Any], latencies: Latencies) -> Iterator[Metric]:
    """The families of LOAD_FAMILIES.

    Args:
        summary: of the load's context.
        latencies: of all processes.
    """
    connected = [((summary["scenario"],), summary["connected"])]
    yield filled(_FAMILIES["app_load_connected_users"], connected)
    yield filled(
        _FAMILIES["app_load_publications_total"],
        (((name,), summary[name]) for name in PUBLICATION_RESULTS),
    )
    yield filled(_FAMILIES["app_load_deliveries_total"], [((), summary["got"])])
    yield filled(
        _FAMILIES["app_load_ledger_faults"], (((name,), summary[name]) for name in LEDGER_FAULTS)
    )
    deliveries = _FAMILIES["app_load_delivery_seconds"]
    counts = [*map(latencies.count_up_to, deliveries.buckets), latencies.count]
    yield filled_histogram(deliveries, counts, latencies.total_seconds)
    requests = _FAMILIES["app_load_requests_total"]
    yield filled(requests, _requests(summary["events"]))
    yield filled(_FAMILIES["app_load_cpu_seconds_total"], [((), summary["cpu_seconds"])])


def _requests(events: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[tuple[str, str], float]]:
    for name, one in events.items():
        yield (name, "ok"), one["count"] - one["failures"]
        yield (name, "failed"), one["failures"]
