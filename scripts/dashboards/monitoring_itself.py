"""Whether the alerting itself works: what Prometheus reaches, what Alertmanager sends, whether the tracker runs."""

from __future__ import annotations

from scripts.dashboards.panels import Page, Panel, Query
from scripts.dashboards.queries import some


def _group(expr: str) -> str:
    """With a label for the group alone: Prometheus names it by the file and the group."""
    return f'label_replace({expr}, "group", "$1", "rule_group", "(?:.*;)?(.*)")'


MONITORING = Page(
    "ws-monitoring",
    "WebSocket cluster: monitoring the monitor",
    "Whether the alerting itself works: what Prometheus reaches, what Alertmanager sends, whether the tracker runs.",
    (
        (
            "What answers, and what is sent",
            (
                Panel(
                    "monitoring",
                    "Targets",
                    "What answers Prometheus; Watchdog fires always, and tells that alerts arrive. AlertmanagerDown, NodeExporterDown, RuleEvaluationFailures and"
                    " NotConnectedToAlertmanager fire when a part of the alerting does not.",
                    "short",
                    (Query("sum by (job) (up)", "{{job}}"),),
                    floors=(1,),
                ),
                Panel(
                    "notifications",
                    "Notifications",
                    "Sent and failed per minute, by receiver. More than 1 % that fail fire NotificationsFailing.",
                    "cpm",
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
                    "How long each group of rules takes. They are evaluated every 15 s (red): what takes longer is late.",
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
                    limits=(5, 15),
                ),
                Panel(
                    "rule-failures",
                    "Evaluations that fail",
                    "Per minute, by group of rules. Any fires RuleEvaluationFailures: the alerts of that group are blind.",
                    "cpm",
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
                    limits=(0.01,),
                ),
                Panel(
                    "alertmanagers",
                    "Alertmanagers that Prometheus knows",
                    "None fires NotConnectedToAlertmanager.",
                    "short",
                    (Query("max (prometheus_notifications_alertmanagers_discovered)", "known"),),
                    width=6,
                    floors=(1,),
                ),
                Panel(
                    "tracker-age",
                    "Last look of the incident tracker",
                    "How long ago it asked Prometheus and Alertmanager. It asks every five seconds; if it does not, nothing is repeated"
                    " that nobody has acknowledged.",
                    "s",
                    (Query("time() - max (app_tracker_last_tick_timestamp_seconds)", "ago"),),
                    kind="number",
                    width=6,
                    limits=(30, 60),
                ),
                Panel(
                    "scrapes-by-job",
                    "Time of the slowest scrape",
                    "By job. A scrape that takes ten seconds is given up, and its target counts as down.",
                    "s",
                    (Query("max by (job) (scrape_duration_seconds)", "{{job}}"),),
                    width=9,
                    limits=(5, 10),
                ),
                Panel(
                    "prometheus-series",
                    "Series in Prometheus",
                    "Each takes a few kilobytes of its memory; a million are much for one server.",
                    "short",
                    (Query("sum (prometheus_tsdb_head_series)", "series"),),
                    width=9,
                    limits=(1_000_000,),
                ),
            ),
        ),
    ),
)
