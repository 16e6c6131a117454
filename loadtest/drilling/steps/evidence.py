"""An alert as Prometheus and Alertmanager return it, for the report and for the steps."""

from __future__ import annotations

from cluster.alerting.prometheus import Rule
from loadtest.drilling.environment.cluster import MonitoredCluster


def at_prometheus(environment: MonitoredCluster, alert: str) -> object:
    """The alert as Prometheus returns it; None if it has no such alert."""
    data = environment.prometheus.service.get("/api/v1/alerts")["data"]["alerts"]
    return next((one for one in data if one["labels"]["alertname"] == alert), None)


def at_alertmanager(environment: MonitoredCluster, alert: str) -> object:
    """The alert as Alertmanager returns it; None if it has no such alert."""
    data = environment.alertmanager.service.get("/api/v2/alerts")
    return next((one for one in data if one["labels"]["alertname"] == alert), None)


def is_active_at_alertmanager(environment: MonitoredCluster, alert: str, rule: Rule | None) -> bool:
    """Whether Alertmanager has the alert, with the labels of its rule, and neither silences nor inhibits it."""
    labels = set(rule.labels.items()) if rule is not None else set()
    return any(
        one.name == alert and one.state == "active" and labels <= set(one.labels.items())
        for one in environment.alertmanager.alerts()
    )
