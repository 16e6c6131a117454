"""Panels that stand in several dashboards."""

from __future__ import annotations

from scripts.dashboards.panels import Panel, Query

FIRING = Panel(
    "alerts-firing",
    "Alerts firing",
    "Alerts of the severities critical and warning that fire now.",
    "short",
    (Query('count(ALERTS{alertstate="firing",severity=~"critical|warning"}) or vector(0)'),),
    kind="number",
    width=6,
    limits=(1,),
)
UTILISATION = Panel(
    "utilisation",
    "How full",
    "Connections in use, of those that fit by file limits and client.connection_limit.",
    "percentunit",
    (Query('job:app_connection_utilisation:ratio{job="$job"}'),),
    kind="number",
    width=6,
    limits=(0.6, 0.8),
)
