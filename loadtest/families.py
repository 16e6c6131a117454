"""The metrics that a load test and a run of drills serve: a table, as that of the cluster in `cluster.metrics.catalogue`."""

from __future__ import annotations

from typing import Final

from cluster.metrics.catalogue import DELIVERY_BUCKETS, Family

PUBLICATION_RESULTS: Final = ("acknowledged", "refused", "unknown")
LEDGER_FAULTS: Final = ("lost", "twice", "out_of_order", "unrecoverable")
REQUEST_RESULTS: Final = ("ok", "failed")
DRILL_RESULTS: Final = ("running", "passed", "failed", "simulated")
TIMED_STEPS: Final = (
    "pending", "firing", "alertmanager", "notified", "acknowledged", "undone", "resolved", "resolve_notified",
)  # fmt: skip

LOAD_FAMILIES: Final = (
    Family("app_load_connected_users", "gauge", "load", "Users that are connected.",
           {"scenario": ()}),
    Family("app_load_publications_total", "counter", "load", "Publications, by the server's reply.",
           {"result": PUBLICATION_RESULTS}),
    Family("app_load_deliveries_total", "counter", "load", "Deliveries, over all subscribers."),
    Family("app_load_ledger_faults", "gauge", "load",
           "What the ledger finds wrong: a publication that comes late is no longer lost.",
           {"kind": LEDGER_FAULTS}),
    Family("app_load_delivery_seconds", "histogram", "load",
           "From publishing to the delivery, both by the clock of the load generator; exact to ten per cent.",
           buckets=DELIVERY_BUCKETS),
    Family("app_load_requests_total", "counter", "load", "Events of Locust; deliveries are a sample.",
           {"name": (), "result": REQUEST_RESULTS}),
    Family("app_load_cpu_seconds_total", "counter", "load",
           "CPU time of the load generator, over its processes."),
)  # fmt: skip

DRILL_FAMILIES: Final = (
    Family("app_drills", "gauge", "drill", "Drills of this run, by their result.",
           {"result": DRILL_RESULTS}),
    Family("app_drills_planned", "gauge", "drill", "Drills that this run will run."),
    Family("app_drill_compression", "gauge", "drill", "How many times faster time passes in a drill.",
           {"drill": ()}),
    Family("app_drill_passed", "gauge", "drill", "1 if an ended drill is proven, simulated ones too, else 0.",
           {"drill": ()}),
    Family("app_drill_step_seconds", "gauge", "drill", "From the fault to a step that was reached.",
           {"drill": (), "step": TIMED_STEPS}),
)  # fmt: skip
