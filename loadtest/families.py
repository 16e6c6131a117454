"""The metrics that a load test and a run of drills serve: a table, as that of the cluster in `cluster.metrics.catalogue`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple


class MetricFamily(NamedTuple):
    """One metric family, as `cluster.metrics.catalogue` has them.

    Attributes:
        labels: all values of each label; empty if they are not known in advance.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    owner: Literal["load", "drill"]
    help: str
    labels: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    buckets: tuple[float, ...] = ()
    mode: str = ""


PUBLICATION_RESULTS: Final = ("acknowledged", "refused", "unknown")
LEDGER_FAULTS: Final = ("lost", "twice", "out_of_order", "unrecoverable")
REQUEST_RESULTS: Final = ("ok", "failed")
DRILL_RESULTS: Final = ("running", "passed", "failed", "simulated")
TIMED_STEPS: Final = (
    "pending", "firing", "alertmanager", "notified", "acknowledged", "undone", "resolved", "resolve_notified",
)  # fmt: skip

# Those of app_publish_to_delivery_seconds, which the dashboards show beside it.
_DELIVERY_BUCKETS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip

LOAD_FAMILIES: Final = (
    MetricFamily("app_load_connected_users", "gauge", "load", "Users that are connected.",
           {"scenario": ()}),
    MetricFamily("app_load_publications_total", "counter", "load", "Publications, by the server's reply.",
           {"result": PUBLICATION_RESULTS}),
    MetricFamily("app_load_deliveries_total", "counter", "load", "Deliveries, over all subscribers."),
    MetricFamily("app_load_ledger_faults", "gauge", "load",
           "What the ledger finds wrong: a publication that comes late is no longer lost.",
           {"kind": LEDGER_FAULTS}),
    MetricFamily("app_load_delivery_seconds", "histogram", "load",
           "From publishing to the delivery, both by the clock of the load generator; exact to ten per cent.",
           buckets=_DELIVERY_BUCKETS),
    MetricFamily("app_load_requests_total", "counter", "load", "Events of Locust; deliveries are a sample.",
           {"name": (), "result": REQUEST_RESULTS}),
    MetricFamily("app_load_cpu_seconds_total", "counter", "load",
           "CPU time of the load generator, over its processes."),
)  # fmt: skip

DRILL_FAMILIES: Final = (
    MetricFamily("app_drills", "gauge", "drill", "Drills of this run, by their result.",
           {"result": DRILL_RESULTS}),
    MetricFamily("app_drills_planned", "gauge", "drill", "Drills that this run will run."),
    MetricFamily("app_drill_compression", "gauge", "drill", "How many times faster time passes in a drill.",
           {"drill": ()}),
    MetricFamily("app_drill_passed", "gauge", "drill", "1 if an ended drill is proven, simulated ones too, else 0.",
           {"drill": ()}),
    MetricFamily("app_drill_step_seconds", "gauge", "drill", "From the fault to a step that was reached.",
           {"drill": (), "step": TIMED_STEPS}),
)  # fmt: skip
