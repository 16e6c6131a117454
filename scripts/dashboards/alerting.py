"""What fires, and whether the alerting itself works."""

from __future__ import annotations

from scripts.dashboards.links import LOGS_AROUND, RUNBOOK
from scripts.dashboards.panels import Column, Page, Panel, Query, Variable
from scripts.dashboards.queries import some
from scripts.dashboards.shared_panels import FIRING


def _group(expr: str) -> str:
    """With a label for the group alone: Prometheus names it by the file and the group."""
    return f'label_replace({expr}, "group", "$1", "rule_group", "(?:.*;)?(.*)")'


# ALERTS_FOR_STATE has the second since which an alert's condition holds, and no label `alertstate`.
_SINCE = (
    '(ALERTS_FOR_STATE{severity!="none"} and ignoring (alertstate) ALERTS{alertstate="firing"})'
)
_BEFORE_SECONDS = 300
_AFTER_SECONDS = 900
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
    "In the time shown. One that is often at the top has a cause that nobody has removed, or a threshold that is too tight;"
    " `ws-cluster monitor history --rates` has the times to acknowledge and to resolve, and false positives.",
    "s",
    (
        Query(
            'sort_desc(15 * count_over_time((max by (alertname) (ALERTS{alertstate="firing",severity!="none"}))[$__range:15s]))',
            "{{alertname}}",
        ),
    ),
    kind="bars",
)

ALERTS = Page(
    "ws-alerts",
    "WebSocket cluster: alerts",
    "What fires, how often, and whether the alerting itself works.",
    (
        (
            "Now",
            (
                FIRING,
                Panel(
                    "alerts-pending",
                    "Alerts pending",
                    "Alerts whose condition holds and that do not fire yet.",
                    "short",
                    (Query('count(ALERTS{alertstate="pending"}) or vector(0)'),),
                    kind="number",
                    width=6,
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
                ),
                _ACTIVE,
                _TIME_FIRING,
                _HISTORY,
            ),
        ),
        (
            "Monitoring the monitoring",
            (
                Panel(
                    "monitoring",
                    "Targets",
                    "What answers Prometheus; Watchdog fires always, and tells that alerts arrive. AlertmanagerDown, NodeExporterDown, RuleEvaluationFailures and"
                    " NotConnectedToAlertmanager fire when a part of the alerting does not.",
                    "short",
                    (Query("sum by (job) (up)", "{{job}}"),),
                ),
                Panel(
                    "notifications",
                    "Notifications",
                    "Sent and failed per minute, by receiver. More than 1 % that fail fire NotificationsFailing.",
                    "short",
                    (
                        Query(
                            "60 * sum by (integration) (rate(alertmanager_notifications_total[5m])) > 0",
                            "sent by {{integration}}",
                        ),
                        Query(
                            some(
                                "60 * sum by (integration) (rate(alertmanager_notifications_failed_total[5m]))",
                                "integration",
                            ),
                            "failed by {{integration}}",
                        ),
                    ),
                ),
                Panel(
                    "rule-evaluation",
                    "Evaluation of the rules",
                    "How long each group of rules takes.",
                    "s",
                    (
                        Query(
                            _group(
                                "max by (rule_group) (prometheus_rule_group_last_duration_seconds)"
                            ),
                            "{{group}}",
                        ),
                    ),
                    width=12,
                ),
                Panel(
                    "rule-failures",
                    "Evaluations that fail",
                    "Per minute, by group of rules. Any fires RuleEvaluationFailures: the alerts of that group are blind.",
                    "short",
                    (
                        Query(
                            _group(
                                some(
                                    "60 * sum by (rule_group) (rate(prometheus_rule_evaluation_failures_total[5m]))",
                                    "rule_group",
                                )
                            ),
                            "{{group}}",
                        ),
                    ),
                    width=6,
                ),
                Panel(
                    "alertmanagers",
                    "Alertmanagers that Prometheus knows",
                    "None fires NotConnectedToAlertmanager.",
                    "short",
                    (Query("max (prometheus_notifications_alertmanagers_discovered)", "known"),),
                    width=6,
                ),
            ),
        ),
    ),
    (Variable("runbooks", "runbooks", "http://localhost/runbooks"),),
)
