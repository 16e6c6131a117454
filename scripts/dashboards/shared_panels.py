"""Panels that stand in several dashboards."""

from __future__ import annotations

from typing import Final

from scripts.dashboards.panels import Panel, Query, Variable
from scripts.dashboards.queries import RATE

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

# The exporter of nginx says nothing of its limits: that of docker/compose.yml, two files for each client.
NGINX_TAKES: Final = Variable("nginx", "clients nginx takes", "32000")
_REDIS: Final = '{job="redis"}'
#: How full what all replicas share is.
SHARED_LIMITS: Final = (
    Query('sum (nginx_connections_active{job="nginx"}) / $nginx', "nginx", job="nginx"),
    Query(
        f"max (redis_memory_used_bytes{_REDIS} / (redis_memory_max_bytes{_REDIS} > 0))",
        "memory of Valkey",
        job="redis",
    ),
    # It runs commands on one core.
    Query(
        f"max (rate(redis_cpu_user_seconds_total{_REDIS}{RATE})"
        f" + rate(redis_cpu_sys_seconds_total{_REDIS}{RATE}))",
        "CPU of Valkey",
        job="redis",
    ),
)
