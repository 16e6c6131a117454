"""How the service does: alerts, rates, errors and durations."""

from __future__ import annotations

from scripts.dashboards.panels import Page, Panel, Query
from scripts.dashboards.queries import LEVELS, of, quantile, rate_of
from scripts.dashboards.shared_panels import FIRING, UTILISATION

_SEVERE = ',level=~"warning|error|critical"'

_CONNECTIONS = Panel(
    "connections",
    "Connections",
    "Open client connections of each replica. None at all fires NoActiveConnections.",
    "short",
    (Query(f"sum by (instance) ({of('app_active_connections')})", "{{instance}}"),),
    floors=(1,),
)
_MESSAGES = Panel(
    "messages",
    "Messages",
    "Commands received, and replies and pushes written. Below 1/s with clients fires LowMessageThroughput.",
    "mps",
    (Query(rate_of("app_messages_total", "direction"), "{{direction}}"),),
    floors=(1,),
)
_SERVICE_ERRORS = Panel(
    "service-errors",
    "Faults of the service",
    "Faults that no client caused, per minute. More than 10 fire HighErrorRate.",
    "cpm",
    (Query(f"60 * {rate_of('app_errors_total', 'type')}", "{{type}}"),),
    limits=(10,),
)
_CLIENT_ERRORS = Panel(
    "client-errors",
    "Errors of clients",
    "Share of commands that clients got wrong. More than a tenth fires HighClientErrorRate.",
    "percentunit",
    (
        Query(
            f"{rate_of('app_client_errors_total')} / (({rate_of('app_commands_total')}) > 0 or vector(1))",
            "of all commands",
        ),
    ),
    limits=(0.1,),
)
_CHURN = Panel(
    "connection-churn",
    "Connections opened and closed",
    "More than 100 opened per second fire HighConnectionChurn: look at the close codes.",
    "cps",
    (
        Query(rate_of("app_connections_opened_total"), "opened"),
        Query(f"{rate_of('app_connections_closed_total', 'code')} > 0", "closed with {{code}}"),
    ),
    limits=(100,),
)
_SESSIONS = Panel(
    "sessions",
    "Sessions",
    "Sessions in the store, of the whole cluster. More than 1,000 fire HighSessionCount.",
    "short",
    (Query(f"max ({of('app_sessions_tracked')})", "sessions"),),
    limits=(1000,),
)
_ERROR_BUDGET = Panel(
    "error-budget",
    "Error budget",
    "Share of commands that failed through the service's fault; 0.1 % is the objective."
    " 14.4 times as much over an hour fires ErrorBudgetFastBurn.",
    "percentunit",
    tuple(
        Query(f'sum (job:app_error_ratio:rate{window}{{job="$job"}}) or vector(0)', window)
        for window in ("5m", "1h", "6h")
    ),
    limits=(0.001, 0.0144),
)
_SLOW_CONSUMERS = Panel(
    "slow-consumers",
    "Clients that do not read",
    "Connections closed because they did not read, per minute. More than 10 fire SlowConsumers.",
    "cpm",
    (Query(f"60 * {rate_of('app_slow_consumers_total')}", "closed"),),
    limits=(10,),
)
LOG_ERRORS = Panel(
    "log-errors",
    "Errors in the logs",
    "Log events of the levels error and critical, per minute. More than 10 fire HighLogErrorRate.",
    "cpm",
    (
        Query(
            f"60 * {rate_of('app_log_events_total', 'level', _SEVERE)}",
            "{{level}}",
        ),
    ),
    limits=(10,),
    colours=LEVELS,
)
_DELIVERY = Panel(
    "delivery-time",
    "From a publish to its delivery",
    "From a worker accepting a publication to a worker writing it to the subscribers. Above 0.25 s (yellow) a ramp calls the cluster full.",
    "s",
    tuple(
        Query(quantile(share, "app_publish_to_delivery_seconds"), f"p{share * 100:g}")
        for share in (0.5, 0.95, 0.99)
    ),
    limits=(0.25, 1),
)
_COMMANDS = Panel(
    "command-time",
    "Time of commands, p99",
    "From a command's arrival to its reply: yellow from 0.25 s on, red from one second.",
    "s",
    (Query(quantile(0.99, "app_command_duration_seconds", "method"), "{{method}}"),),
    limits=(0.25, 1),
)
_ALIVE = Panel(
    "workers-alive",
    "Workers",
    "Workers that are up, ready or not.",
    "short",
    (Query(f"sum ({of('app_workers_alive')})"),),
    kind="number",
    width=6,
    floors=(1,),
)
_REPLICAS = Panel(
    "replicas-and-workers",
    "Replicas and workers",
    "Replicas that answer, and their workers. A replica that is lost fires ServiceDown and ReplicaLost.",
    "short",
    (
        Query('sum (up{job="$job"})', "replicas"),
        Query(f"sum ({of('app_workers_alive')})", "workers"),
    ),
    floors=(1,),
)

OVERVIEW = Page(
    "ws-overview",
    "WebSocket cluster: overview",
    "How the service does: alerts, rates, errors and durations.",
    (
        (
            "Now",
            (
                FIRING,
                _ALIVE,
                UTILISATION,
                Panel(
                    "connections-now",
                    "Connections now",
                    "Open client connections.",
                    "short",
                    (Query(f"sum ({of('app_active_connections')})"),),
                    kind="number",
                    width=6,
                    floors=(1,),
                ),
            ),
        ),
        ("Traffic", (_CONNECTIONS, _MESSAGES, _CHURN, _SESSIONS)),
        ("Errors", (_SERVICE_ERRORS, _CLIENT_ERRORS, _ERROR_BUDGET, LOG_ERRORS)),
        ("Durations", (_DELIVERY, _COMMANDS, _SLOW_CONSUMERS, _REPLICAS)),
    ),
)
