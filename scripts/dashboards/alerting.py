"""What fires, and whether the alerting itself works."""

from __future__ import annotations

from scripts.dashboards.panels import Page, Panel, Query
from scripts.dashboards.shared_panels import FIRING

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
                    "Alerts that fire; each has a runbook in docs/runbooks. Watchdog fires always.",
                    "short",
                    (Query('sum by (alertname) (ALERTS{alertstate="firing"})', "{{alertname}}"),),
                    width=12,
                ),
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
                            "60 * sum by (integration) (rate(alertmanager_notifications_total[5m]))",
                            "sent by {{integration}}",
                        ),
                        Query(
                            "60 * sum by (integration) (rate(alertmanager_notifications_failed_total[5m]))",
                            "failed by {{integration}}",
                        ),
                    ),
                ),
                Panel(
                    "rule-evaluation",
                    "Evaluation of the rules",
                    "How long a group of rules takes, and evaluations that fail per minute.",
                    "s",
                    (
                        Query("max by (rule_group) (prometheus_rule_group_last_duration_seconds)"),
                        Query(
                            "60 * sum (rate(prometheus_rule_evaluation_failures_total[5m]))",
                            "failed",
                        ),
                    ),
                ),
                Panel(
                    "alertmanagers",
                    "Alertmanagers that Prometheus knows",
                    "None fires NotConnectedToAlertmanager.",
                    "short",
                    (Query("max (prometheus_notifications_alertmanagers_discovered)", "known"),),
                ),
            ),
        ),
    ),
)
