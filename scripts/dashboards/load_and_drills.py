"""What a load test does to the cluster, and what the drills have proven."""

from __future__ import annotations

from typing import Final

from scripts.dashboards.panels import Column, Page, Panel, Query
from scripts.dashboards.queries import RATE, quantile, rate_of

_LAST: Final = "last_over_time({}[$__range])"


def _of_load(share: float) -> Query:
    rates = f"sum by (le) (rate(app_load_delivery_seconds_bucket{RATE}))"
    return Query(f"histogram_quantile({share}, {rates}) >= 0", f"p{share * 100:g}")


def _step(name: str) -> str:
    family = f'app_drill_step_seconds{{step="{name}"}}'
    return f"max by (drill) ({_LAST.format(family)})"


def _drills(result: str) -> str:
    family = f'app_drills{{result="{result}"}}'
    return f"max ({_LAST.format(family)})"


_REQUESTS: Final = f"sum (rate(app_load_requests_total{RATE}))"
_FAILED: Final = f'sum (rate(app_load_requests_total{{result="failed"}}{RATE}))'

_NOW = (
    Panel(
        "load-users",
        "Users of the load test",
        "Those that are connected, by scenario. No data: no load test serves its metrics, see docs/how-to/load-test.md.",
        "short",
        (Query("sum by (scenario) (app_load_connected_users)", "{{scenario}}"),),
        kind="number",
        width=6,
    ),
    Panel(
        "load-lost",
        "Lost, doubled, out of order",
        "What the ledger of the last load test in the time shown finds wrong. One is too many.",
        "short",
        (Query(f"sum ({_LAST.format('app_load_ledger_faults')})", "faults"),),
        kind="number",
        width=6,
        limits=(1,),
    ),
    Panel(
        "load-p99",
        "p99 of deliveries",
        "As the load generator measures it. Above 250 ms a ramp calls the cluster full.",
        "s",
        (_of_load(0.99),),
        kind="number",
        width=6,
        limits=(0.25, 1),
    ),
    Panel(
        "load-failures",
        "Requests that fail",
        "Of all events of Locust. Above 1 % a ramp calls the cluster full.",
        "percentunit",
        (Query(f"{_FAILED} / {_REQUESTS}", "failed"),),
        kind="number",
        width=6,
        limits=(0.01, 0.05),
    ),
)
_IN_TIME = (
    Panel(
        "load-traffic",
        "Publications and deliveries",
        "Per second, as the load generator counts them. An unknown publication is one whose connection ended before the reply.",
        "short",
        (
            Query(
                f"sum by (result) (rate(app_load_publications_total{RATE}))",
                "publications {{result}}",
            ),
            Query(f"sum (rate(app_load_deliveries_total{RATE}))", "deliveries"),
        ),
    ),
    Panel(
        "load-delivery",
        "Time to delivery",
        "By the load generator, and the p99 that the workers themselves measure: what lies between is nginx, the network and"
        " the load generator.",
        "s",
        (
            *map(_of_load, (0.5, 0.95, 0.99)),
            Query(quantile(0.99, "app_publish_to_delivery_seconds"), "p99 of the workers"),
        ),
        limits=(0.25, 1),
    ),
    Panel(
        "load-ledger",
        "Faults in the ledger",
        "By kind, since the load test began. A publication that comes late is no longer lost.",
        "short",
        (Query("sum by (kind) (app_load_ledger_faults)", "{{kind}}"),),
        limits=(1,),
        colours=(
            ("lost", "red"),
            ("twice", "orange"),
            ("out_of_order", "yellow"),
            ("unrecoverable", "purple"),
        ),
    ),
    Panel(
        "load-requests",
        "Events of Locust",
        "Per second: connects, publications, calls, and a sample of the deliveries.",
        "short",
        (Query(f"sum by (name) (rate(app_load_requests_total{RATE}))", "{{name}}"),),
    ),
    Panel(
        "load-connections",
        "Users and connections",
        "Users of the load test, and open connections of the cluster.",
        "short",
        (
            Query("sum (app_load_connected_users)", "users"),
            Query('job:app_active_connections:sum{job="$job"}', "connections"),
        ),
    ),
    Panel(
        "load-cpu",
        "Cores in use",
        "By the load generator and by the workers. A process of Locust that uses one core is full, and measures itself: give it"
        " `--processes`.",
        "short",
        (
            Query(f"sum (rate(app_load_cpu_seconds_total{RATE}))", "load generator"),
            Query(rate_of("app_worker_cpu_seconds_total"), "workers"),
        ),
        limits=(1,),
    ),
)
_DRILLS = (
    Panel(
        "drills-passed",
        "Drills passed",
        "Of the last run in the time shown, beside those planned and those that run. No data: no drills serve their metrics, see"
        " docs/how-to/drill.md.",
        "short",
        (
            Query(_drills("passed"), "passed"),
            Query(_drills("running"), "running"),
            Query(f"max ({_LAST.format('app_drills_planned')})", "planned"),
        ),
        kind="number",
        width=8,
    ),
    Panel(
        "drills-failed",
        "Drills failed",
        "An alert that was not proven. The report says which link of the chain broke.",
        "short",
        (Query(_drills("failed"), "failed"),),
        kind="number",
        width=4,
        limits=(1,),
    ),
    Panel(
        "drill-notified",
        "From firing to the notification",
        "In the time of the drill. Above a minute a page comes late (yellow); above five (red), after the response time.",
        "s",
        (Query(f"{_step('notified')} - {_step('firing')}", "{{drill}}"),),
        kind="bars",
        limits=(60, 300),
    ),
    Panel(
        "drill-steps",
        "What each drill has reached, and when",
        "Seconds from the fault to each step, in compressed time unless the factor is 1. An empty field was not reached, or is no step"
        " of that drill; its runbook says what the alert means.",
        "s",
        (
            Query(f"max by (drill) ({_LAST.format('app_drill_passed')})"),
            Query(f"max by (drill) ({_LAST.format('app_drill_compression')})"),
            *(
                Query(_step(name))
                for name in (
                    "pending",
                    "firing",
                    "notified",
                    "acknowledged",
                    "undone",
                    "resolved",
                )
            ),
        ),
        kind="table",
        width=24,
        columns=(
            Column("drill", "Drill"),
            Column("Value #A", "Proven", unit="bool_yes_no", width=90),
            Column("Value #B", "Time passes faster by", unit="none", width=170),
            Column("Value #C", "Pending", unit="s", width=110),
            Column("Value #D", "Firing", unit="s", width=110),
            Column("Value #E", "Notified", unit="s", width=110),
            Column("Value #F", "Acknowledged", unit="s", width=120),
            Column("Value #G", "Undone", unit="s", width=110),
            Column("Value #H", "Resolved", unit="s", width=110),
        ),
    ),
)

LOAD = Page(
    "ws-load",
    "WebSocket cluster: load test and drill",
    "What a load test does to the cluster, and what the drills have proven. Both have to serve their metrics: `--metrics-listen`.",
    (("Load test", (*_NOW, *_IN_TIME)), ("Drills", _DRILLS)),
)
