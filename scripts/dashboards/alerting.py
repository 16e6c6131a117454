"""What fires, how often, and how soon it is acknowledged and resolved."""

from __future__ import annotations

from scripts.dashboards.links import LOGS_AROUND, RUNBOOK
from scripts.dashboards.panels import Column, Page, Panel, Query, Variable
from scripts.dashboards.shared_panels import FIRING

# ALERTS_FOR_STATE has the second since which an alert's condition holds, and no label `alertstate`.
_SINCE = (
    '(ALERTS_FOR_STATE{severity!="none"} and ignoring (alertstate) ALERTS{alertstate="firing"})'
)
_BEFORE_SECONDS = 300
_AFTER_SECONDS = 900


def _against_target(family: str) -> tuple[Query, ...]:
    """Median and slowest by severity, as shares of the response time that they are to meet."""
    target = "on (severity) max by (severity) (app_incident_target_seconds)"
    return (
        Query(f"quantile by (severity) (0.5, {family}) / {target}", "median, {{severity}}"),
        Query(f"max by (severity) ({family}) / {target}", "slowest, {{severity}}"),
    )


_ACTIVE = Panel(
    "alerts-active",
    "Alerts that fire, and where they lead",
    "Since when the condition holds. The name leads to the log lines from five minutes before until fifteen after, and to"
    " the runbook. An alert without an instance is about the whole cluster.",
    "short",
    tuple(
        Query(f"1000 * ({_SINCE}{shift})")
        for shift in ("", f" - {_BEFORE_SECONDS}", f" + {_AFTER_SECONDS}")
    ),
    kind="table",
    width=12,
    columns=(
        Column("alertname", "Alert", links=(*LOGS_AROUND, RUNBOOK)),
        Column("severity", "Severity", width=110),
        Column("instance", "Instance", width=160),
        Column("Value #A", "Since", unit="dateTimeAsIso", width=180),
        Column("Value #B", "from", unit="none", is_hidden=True),
        Column("Value #C", "to", unit="none", is_hidden=True),
    ),
)
_HISTORY = Panel(
    "alerts-history",
    "Alerts over time",
    "How many fired at each moment, by name.",
    "short",
    (Query('sum by (alertname) (ALERTS{alertstate="firing",severity!="none"})', "{{alertname}}"),),
    kind="stack",
    width=24,
)
_TIME_FIRING = Panel(
    "alerts-time-firing",
    "How long each fired",
    "In the time shown, yellow from an hour on and red from a day. One that is often at the top has a cause that nobody has removed, or a threshold that is too tight.",
    "s",
    (
        Query(
            'sort_desc(15 * count_over_time((max by (alertname) (ALERTS{alertstate="firing",severity!="none"}))[$__range:15s]))',
            "{{alertname}}",
        ),
    ),
    kind="bars",
    limits=(3600, 86400),
)

_FIRED = "app_incident_fired_timestamp_seconds"
_INCIDENTS = (
    Panel(
        "incidents-open",
        "Open incidents",
        "Those that fire and nobody has acknowledged, and those that somebody has: `ws-cluster monitor ack` does it.",
        "short",
        (Query("sum by (state) (app_incidents_open)", "{{state}}"),),
        kind="number",
        width=6,
        limits=(1,),
    ),
    Panel(
        "incidents-in-time",
        "Answered in time",
        "Of the critical alerts and warnings that are due: acknowledged or resolved within the response time.",
        "percentunit",
        (
            Query(
                'sum (app_incidents_answered{result="in_time"}) / sum (app_incidents_answered)',
                "in time",
            ),
        ),
        kind="number",
        width=6,
        floors=(0.8, 0.95),
    ),
    Panel(
        "time-to-acknowledge",
        "Time to acknowledge",
        "By severity, as a share of its response time: 5 minutes for a critical alert and 30 for a warning, unless the tracker runs"
        " with others. Yellow from 80 % of it on; red is too late.",
        "percentunit",
        _against_target("app_incident_acknowledge_seconds"),
        kind="bars",
        limits=(0.8, 1),
    ),
    Panel(
        "firing-rates",
        "How often each fired",
        "In seven days. One that fires more than once a day (yellow) or three times (red) has a cause that nobody has removed, or a"
        " threshold that is too tight.",
        "short",
        (Query("sort_desc(sum by (alertname) (app_incidents_fired))", "{{alertname}}"),),
        kind="bars",
        limits=(7, 21),
    ),
    Panel(
        "time-to-resolve",
        "Time to resolve",
        "From firing to the end, as a share of the response time of the severity: what ends sooner needs no acknowledgement.",
        "percentunit",
        _against_target("app_incident_resolve_seconds"),
        kind="bars",
        limits=(0.8, 1),
    ),
    Panel(
        "incidents",
        "History",
        "The last hundred incidents. The name leads to the log lines from five minutes before until fifteen after, and to the"
        " runbook; `ws-cluster monitor history` has who acknowledged, and marks false positives. Yellow from 5 minutes on is late for a critical"
        " alert, red from 30 on for a warning, too.",
        "short",
        tuple(
            Query(query)
            for query in (
                f"sort_desc(1000 * {_FIRED})",
                "app_incident_acknowledge_seconds",
                "app_incident_resolve_seconds",
                f"1000 * ({_FIRED} - {_BEFORE_SECONDS})",
                f"1000 * ({_FIRED} + {_AFTER_SECONDS})",
            )
        ),
        kind="table",
        width=16,
        limits=(300, 1800),
        height=12,
        columns=(
            Column("alertname", "Alert", links=(*LOGS_AROUND, RUNBOOK)),
            Column("severity", "Severity", width=90),
            Column("alert_instance", "Instance", width=150),
            Column("Value #A", "Fired", unit="dateTimeAsIso", width=170),
            Column("Value #B", "Acknowledged after", unit="s", width=170, is_coloured=True),
            Column("Value #C", "Resolved after", unit="s", width=130, is_coloured=True),
            Column("Value #D", "from", unit="none", is_hidden=True),
            Column("Value #E", "to", unit="none", is_hidden=True),
        ),
    ),
    Panel(
        "false-positives",
        "False positives",
        "Share of the firings that `ws-cluster monitor history --false-positive` has marked. From 10 % on people cease to believe an"
        " alert (yellow); at 30 % (red) change or remove it.",
        "percentunit",
        (
            Query(
                "sum by (alertname) (app_incidents_false_positive) / sum by (alertname) (app_incidents_fired)",
                "{{alertname}}",
            ),
        ),
        kind="bars",
        width=8,
        limits=(0.1, 0.3),
        height=12,
    ),
)

ALERTS = Page(
    "ws-alerts",
    "WebSocket cluster: alerts",
    "What fires, how often, and how soon it is acknowledged and resolved; what was a false positive.",
    (
        (
            "Now",
            (
                FIRING,
                Panel(
                    "alerts-pending",
                    "Alerts pending",
                    "Alerts whose condition holds and that do not fire yet: yellow from one on, red from three.",
                    "short",
                    (Query('count(ALERTS{alertstate="pending"}) or vector(0)'),),
                    kind="number",
                    width=6,
                    limits=(1, 3),
                ),
                Panel(
                    "alerts-by-name",
                    "Which",
                    "Alerts that fire; each has a runbook in docs/runbooks.",
                    "short",
                    (
                        Query(
                            'sum by (alertname) (ALERTS{alertstate="firing",severity!="none"})',
                            "{{alertname}}",
                        ),
                    ),
                    kind="bars",
                    width=12,
                    limits=(1,),
                ),
                _ACTIVE,
                _TIME_FIRING,
                _HISTORY,
            ),
        ),
        ("Incidents of the last seven days", _INCIDENTS),
    ),
    (Variable("runbooks", "runbooks", "http://localhost/runbooks"),),
)
