"""The dashboards: what each shows, and the queries behind it."""

from __future__ import annotations

from typing import Final

from scripts.dashboards.panels import Page, Panel, Query, Variable

_APP: Final = 'job="$job",instance=~"$instance"'
_RATE: Final = "[$__rate_interval]"
_SEVERE: Final = ',level=~"warning|error|critical"'


def _rate(family: str, by: str = "", more: str = "") -> str:
    clause = f" by ({by})" if by else ""
    return f"sum{clause} (rate({family}{{{_APP}{more}}}{_RATE}))"


def _quantile(share: float, family: str, by: str = "", window: str = _RATE) -> str:
    labels = f"le,{by}" if by else "le"
    return (
        f"histogram_quantile({share}, sum by ({labels}) (rate({family}_bucket{{{_APP}}}{window})))"
    )


def _of(family: str, more: str = "") -> str:
    return f"{family}{{{_APP}{more}}}"


_CONNECTIONS = Panel(
    "connections",
    "Connections",
    "Open client connections of each replica. None at all fires NoActiveConnections.",
    "short",
    (Query(f"sum by (instance) ({_of('app_active_connections')})", "{{instance}}"),),
)
_MESSAGES = Panel(
    "messages",
    "Messages",
    "Commands received, and replies and pushes written. Below 1/s with clients fires LowMessageThroughput.",
    "reqps",
    (Query(_rate("app_messages_total", "direction"), "{{direction}}"),),
)
_SERVICE_ERRORS = Panel(
    "service-errors",
    "Faults of the service",
    "Faults that no client caused, per minute. More than 10 fire HighErrorRate.",
    "short",
    (Query(f"60 * {_rate('app_errors_total', 'type')}", "{{type}}"),),
    limits=(10,),
)
_CLIENT_ERRORS = Panel(
    "client-errors",
    "Errors of clients",
    "Share of commands that clients got wrong. More than a tenth fires HighClientErrorRate.",
    "percentunit",
    (
        Query(
            f"{_rate('app_client_errors_total')} / (({_rate('app_commands_total')}) > 0 or vector(1))",
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
        Query(_rate("app_connections_opened_total"), "opened"),
        Query(_rate("app_connections_closed_total", "code"), "closed with {{code}}"),
    ),
    limits=(100,),
)
_SESSIONS = Panel(
    "sessions",
    "Sessions",
    "Sessions in the store, of the whole cluster. More than 1,000 fire HighSessionCount.",
    "short",
    (Query(f"max ({_of('app_sessions_tracked')})", "sessions"),),
    limits=(1000,),
)
_ERROR_BUDGET = Panel(
    "error-budget",
    "Error budget",
    "Share of commands that failed through the service's fault; 0.1 % is the objective."
    " 14.4 times as much over an hour fires ErrorBudgetFastBurn.",
    "percentunit",
    tuple(
        Query(f'job:app_error_ratio:rate{window}{{job="$job"}} or vector(0)', window)
        for window in ("5m", "1h", "6h")
    ),
    limits=(0.001, 0.0144),
)
_SLOW_CONSUMERS = Panel(
    "slow-consumers",
    "Clients that do not read",
    "Connections closed because they did not read, per minute. More than 10 fire SlowConsumers.",
    "short",
    (Query(f"60 * {_rate('app_slow_consumers_total')}", "closed"),),
    limits=(10,),
)
_LOG_ERRORS = Panel(
    "log-errors",
    "Errors in the logs",
    "Log events of the levels error and critical, per minute. More than 10 fire HighLogErrorRate.",
    "short",
    (
        Query(
            f"60 * {_rate('app_log_events_total', 'level', _SEVERE)}",
            "{{level}}",
        ),
    ),
    limits=(10,),
)
_DELIVERY = Panel(
    "delivery-time",
    "From a publish to its delivery",
    "From a worker accepting a publication to a worker writing it to the subscribers.",
    "s",
    tuple(
        Query(_quantile(share, "app_publish_to_delivery_seconds"), f"p{share * 100:g}")
        for share in (0.5, 0.95, 0.99)
    ),
)
_COMMANDS = Panel(
    "command-time",
    "Time of commands, p99",
    "From a command's arrival to its reply.",
    "s",
    (Query(_quantile(0.99, "app_command_duration_seconds", "method"), "{{method}}"),),
)
_FIRING = Panel(
    "alerts-firing",
    "Alerts firing",
    "Alerts of the severities critical and warning that fire now.",
    "short",
    (Query('count(ALERTS{alertstate="firing",severity=~"critical|warning"}) or vector(0)'),),
    kind="number",
    width=6,
    limits=(1,),
)
_ALIVE = Panel(
    "workers-alive",
    "Workers",
    "Workers that are up, ready or not.",
    "short",
    (Query(f"sum ({_of('app_workers_alive')})"),),
    kind="number",
    width=6,
)
_UTILISATION = Panel(
    "utilisation",
    "How full",
    "Connections in use, of those that fit by file limits and client.connection_limit.",
    "percentunit",
    (Query('job:app_connection_utilisation:ratio{job="$job"}'),),
    kind="number",
    width=6,
    limits=(0.6, 0.8),
)
_REPLICAS = Panel(
    "replicas-and-workers",
    "Replicas and workers",
    "Replicas that answer, and their workers. A replica that is lost fires ServiceDown and ReplicaLost.",
    "short",
    (
        Query('sum (up{job="$job"})', "replicas"),
        Query(f"sum ({_of('app_workers_alive')})", "workers"),
    ),
)

OVERVIEW = Page(
    "ws-overview",
    "WebSocket cluster: overview",
    "How the service does: alerts, rates, errors and durations.",
    (
        (
            "Now",
            (
                _FIRING,
                _ALIVE,
                _UTILISATION,
                Panel(
                    "connections-now",
                    "Connections now",
                    "Open client connections.",
                    "short",
                    (Query(f"sum ({_of('app_active_connections')})"),),
                    kind="number",
                    width=6,
                ),
            ),
        ),
        ("Traffic", (_CONNECTIONS, _MESSAGES, _CHURN, _SESSIONS)),
        ("Errors", (_SERVICE_ERRORS, _CLIENT_ERRORS, _ERROR_BUDGET, _LOG_ERRORS)),
        ("Durations", (_DELIVERY, _COMMANDS, _SLOW_CONSUMERS, _REPLICAS)),
    ),
)

_ENDS_FIRST = (
    Query('job:app_connection_utilisation:ratio{job="$job"}', "connections"),
    Query(
        f"max ({_of('app_memory_working_set_bytes')} / {_of('app_memory_limit_bytes')})", "memory"
    ),
    Query(f"max ({_of('app_worker_open_fds')} / {_of('app_worker_max_fds')})", "file descriptors"),
    Query(f"max (rate({_of('app_worker_cpu_seconds_total')}[5m]))", "CPU of the busiest worker"),
)

CAPACITY = Page(
    "ws-capacity",
    "WebSocket cluster: capacity planning",
    "How full the cluster is, what ends first and when, and how many replicas are needed. The ceilings come from"
    " docker/capacity.yml, which `ws-cluster capacity` has measured.",
    (
        (
            "How full",
            (
                _UTILISATION,
                Panel(
                    "ends-first",
                    "What ends first",
                    "Use of each resource; the longest bar is the next limit.",
                    "percentunit",
                    _ENDS_FIRST,
                    kind="bars",
                    width=12,
                    limits=(0.6, 0.8),
                ),
                Panel(
                    "after-a-loss",
                    "If a replica is lost",
                    "How full the others are when the largest replica's clients have come to them. Above 1, some find no place.",
                    "percentunit",
                    (
                        Query(
                            f"sum ({_of('app_active_connections')}) / clamp_min(sum ({_of('app_connection_capacity')})"
                            f" - max ({_of('app_connection_capacity')}), 1)"
                        ),
                    ),
                    kind="number",
                    width=6,
                    limits=(0.8, 1),
                ),
            ),
        ),
        (
            "Growth",
            (
                Panel(
                    "connection-headroom",
                    "Connections, and how many fit",
                    "The peak of a day against the capacity. Above 80 % fires ConnectionCapacity.",
                    "short",
                    (
                        Query(f"sum ({_of('app_active_connections')})", "open"),
                        Query(
                            'max_over_time(job:app_active_connections:sum{job="$job"}[1d])',
                            "peak of a day",
                        ),
                        Query(f"sum ({_of('app_connection_capacity')})", "fit"),
                    ),
                ),
                Panel(
                    "full-in",
                    "Full in",
                    "When the connections reach the capacity, at the growth of the last six hours; 10 years if they do not grow.",
                    "s",
                    (
                        Query(
                            f"clamp_max((sum ({_of('app_connection_capacity')}) - sum ({_of('app_active_connections')}))"
                            ' / clamp_min(sum (deriv(job:app_active_connections:sum{job="$job"}[6h])), 0.000001), 315360000)'
                        ),
                    ),
                    kind="number",
                    width=6,
                ),
                Panel(
                    "in-a-week",
                    "Connections in a week",
                    "If the growth of the last six hours goes on (predict_linear).",
                    "short",
                    (
                        Query(
                            'clamp_min(sum (predict_linear(job:app_active_connections:sum{job="$job"}[6h], 604800)), 0)'
                        ),
                    ),
                    kind="number",
                    width=6,
                ),
            ),
        ),
        (
            "Replicas for what you expect",
            (
                Panel(
                    "replicas-for-connections",
                    "Replicas for the connections",
                    "For the connections typed in above, with one replica to spare.",
                    "short",
                    (
                        Query(
                            "ceil($connections / (app_capacity_connections_per_worker * $workers)) + 1"
                        ),
                    ),
                    kind="number",
                    width=8,
                ),
                Panel(
                    "replicas-for-messages",
                    "Replicas for the messages",
                    "For the messages per second typed in above, one core per worker, with one replica to spare.",
                    "short",
                    (
                        Query(
                            "ceil($messages / (app_capacity_messages_per_second_per_core * $workers)) + 1"
                        ),
                    ),
                    kind="number",
                    width=8,
                ),
                Panel(
                    "memory-for-connections",
                    "Memory for the connections",
                    "Of the workers, for the connections typed in above, as measured.",
                    "bytes",
                    (Query("$connections * app_capacity_bytes_per_connection"),),
                    kind="number",
                    width=8,
                ),
            ),
        ),
        (
            "What a connection costs",
            (
                Panel(
                    "memory-per-connection",
                    "Memory per connection",
                    "Resident memory of the workers by their connections; with few connections it is mostly the workers' own.",
                    "bytes",
                    (
                        Query(
                            f"sum ({_of('app_worker_resident_memory_bytes')}) / clamp_min(sum ({_of('app_active_connections')}), 1)",
                            "bytes",
                        ),
                    ),
                ),
                Panel(
                    "cpu-per-message",
                    "CPU per message",
                    "CPU time of the workers by the messages that they receive and write.",
                    "s",
                    (
                        Query(
                            f"{_rate('app_worker_cpu_seconds_total')} / clamp_min({_rate('app_messages_total')}, 1)",
                            "seconds",
                        ),
                    ),
                ),
                Panel(
                    "memory",
                    "Memory",
                    "Use of each replica's memory limit. Above 85 % fires HighMemoryUsage, and MemoryWillHitLimit"
                    " if it is full within an hour.",
                    "percentunit",
                    (
                        Query(
                            f"{_of('app_memory_working_set_bytes')} / {_of('app_memory_limit_bytes')}",
                            "{{instance}}",
                        ),
                    ),
                    limits=(0.85,),
                ),
                Panel(
                    "file-descriptors",
                    "File descriptors",
                    "Use of the fullest worker of each replica. Above 80 % fires FileDescriptorsExhausting.",
                    "percentunit",
                    (
                        Query(
                            f"max by (instance) ({_of('app_worker_open_fds')} / {_of('app_worker_max_fds')})",
                            "{{instance}}",
                        ),
                    ),
                    limits=(0.8,),
                ),
            ),
        ),
    ),
    (
        Variable("connections", "connections", "100000"),
        Variable("messages", "messages/s", "10000"),
        Variable("workers", "workers per replica", "2"),
    ),
)

ALERTS = Page(
    "ws-alerts",
    "WebSocket cluster: alerts",
    "What fires, how often, and whether the alerting itself works.",
    (
        (
            "Now",
            (
                _FIRING,
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

SHUTDOWNS = Page(
    "ws-shutdowns",
    "WebSocket cluster: shutdowns and deployments",
    "How long workers take to stop and to start, phase by phase.",
    (
        (
            "Shutdowns",
            (
                Panel(
                    "shutdown-time",
                    "Time of shutdowns",
                    "From the stop signal to a worker's exit. A p95 above 5 s fires SlowShutdownTime.",
                    "s",
                    tuple(
                        Query(
                            _quantile(share, "app_shutdown_duration_seconds", window="[15m]"),
                            f"p{share * 100:g}",
                        )
                        for share in (0.5, 0.95, 0.99)
                    ),
                    limits=(5,),
                ),
                Panel(
                    "shutdown-phases",
                    "Phases, p95",
                    "Clients are closed, publishes flushed, sessions detached, the process exits.",
                    "s",
                    (
                        Query(
                            _quantile(
                                0.95, "app_shutdown_phase_duration_seconds", "phase", "[15m]"
                            ),
                            "{{phase}}",
                        ),
                    ),
                ),
                Panel(
                    "worker-exits",
                    "How workers ended",
                    "Clean, killed after the grace period, or crashed; in 15 minutes.",
                    "short",
                    (
                        Query(
                            f"sum by (outcome) (increase({_of('app_worker_exits_total')}[15m]))",
                            "{{outcome}}",
                        ),
                    ),
                ),
                Panel(
                    "worker-restarts",
                    "Restarts",
                    "Workers restarted in 15 minutes, by reason. More than two crashes fire WorkerCrashLooping.",
                    "short",
                    (
                        Query(
                            f"sum by (reason) (increase({_of('app_worker_restarts_total')}[15m]))",
                            "{{reason}}",
                        ),
                    ),
                    limits=(2.5,),
                ),
            ),
        ),
        (
            "Deployments",
            (
                Panel(
                    "deployments",
                    "Age of each version",
                    "Since its workers last became ready. Below five minutes fires DeploymentCompleted.",
                    "s",
                    (
                        Query(
                            f"time() - max by (version) ({_of('app_deployment_timestamp_seconds')})",
                            "{{version}}",
                        ),
                    ),
                ),
                Panel(
                    "startup-time",
                    "Time of starts",
                    "From a worker's start to ready.",
                    "s",
                    tuple(
                        Query(
                            _quantile(share, "app_startup_duration_seconds", window="[15m]"),
                            f"p{share * 100:g}",
                        )
                        for share in (0.5, 0.95)
                    ),
                ),
            ),
        ),
    ),
)

WORKERS = Page(
    "ws-workers",
    "WebSocket cluster: workers and balance",
    "The event loops, the CPU and the metrics of the workers, and how even the replicas are.",
    (
        (
            "Event loops and CPU",
            (
                Panel(
                    "event-loop-lag",
                    "Lag of the event loops, p99",
                    "Delay of a timer. Above 0.25 s fires EventLoopLag.",
                    "s",
                    (
                        Query(
                            'instance:app_event_loop_lag_seconds:p99_rate5m{job="$job",instance=~"$instance"}',
                            "{{instance}}",
                        ),
                    ),
                    limits=(0.25,),
                ),
                Panel(
                    "worker-cpu",
                    "CPU of each worker",
                    "A whole core is 1. Above 0.9 fires WorkerCPUSaturated.",
                    "percentunit",
                    (
                        Query(
                            f"sum by (instance, worker) (rate({_of('app_worker_cpu_seconds_total')}[2m]))",
                            "{{instance}} {{worker}}",
                        ),
                    ),
                    limits=(0.9,),
                ),
                Panel(
                    "worker-memory",
                    "Memory of each worker",
                    "Resident memory.",
                    "bytes",
                    (Query(_of("app_worker_resident_memory_bytes"), "{{instance}} {{worker}}"),),
                ),
                Panel(
                    "balance",
                    "Balance",
                    "Connections of each replica by the mean of all: 1 is even. Connections do not move by themselves.",
                    "short",
                    (
                        Query(
                            f"sum by (instance) ({_of('app_active_connections')}) / on () group_left"
                            f" clamp_min(avg (sum by (instance) ({_of('app_active_connections')})), 1)",
                            "{{instance}}",
                        ),
                    ),
                ),
            ),
        ),
        (
            "Metrics",
            (
                Panel(
                    "scrape-duration",
                    "Time of a scrape",
                    "Above 1 s fires AppScrapeSlow.",
                    "s",
                    (Query(_of("scrape_duration_seconds"), "{{instance}}"),),
                    limits=(1,),
                ),
                Panel(
                    "metrics-collection",
                    "Metric files",
                    "Files read, and files that could not be read in five minutes, which fire MetricsFilesCorrupt.",
                    "short",
                    (
                        Query(_of("app_metrics_files"), "{{instance}} read"),
                        Query(
                            f"increase({_of('app_metrics_collect_errors_total')}[5m])",
                            "{{instance}} put aside",
                        ),
                    ),
                ),
            ),
        ),
        (
            "Machines",
            (
                Panel(
                    "host-cpu",
                    "CPU of the machines",
                    "Above 80 % fires HighCPUUsage.",
                    "percentunit",
                    (
                        Query(
                            '1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[5m]))',
                            "{{instance}}",
                        ),
                    ),
                    limits=(0.8,),
                ),
                Panel(
                    "host-disk",
                    "Disks of the machines",
                    "Above 90 % fires HighDiskUsage.",
                    "percentunit",
                    (
                        Query(
                            'max by (instance, mountpoint) (1 - node_filesystem_avail_bytes{mountpoint="/"}'
                            ' / node_filesystem_size_bytes{mountpoint="/"})',
                            "{{instance}} {{mountpoint}}",
                        ),
                    ),
                    limits=(0.9,),
                ),
            ),
        ),
    ),
)

STORE = Page(
    "ws-store",
    "WebSocket cluster: the store",
    "The connections to Valkey or Redis, and what is read from it.",
    (
        (
            "Broker",
            (
                Panel(
                    "broker",
                    "Broker",
                    "1 while every connection to the broker works, and how long ago the worker that is furthest behind has"
                    " heard its own canary. BrokerDisconnected and BrokerDeaf fire otherwise.",
                    "short",
                    (
                        Query(f"min by (instance) ({_of('app_broker_up')})", "{{instance}} up"),
                        Query(
                            f"timestamp({_of('app_broker_last_message_timestamp_seconds')})"
                            f" - {_of('app_broker_last_message_timestamp_seconds')}",
                            "{{instance}} seconds since its canary",
                        ),
                    ),
                ),
                Panel(
                    "publications",
                    "Publications",
                    "Accepted by the broker from this service's clients and backends.",
                    "reqps",
                    (Query(_rate("app_publications_total"), "published"),),
                ),
                Panel(
                    "recoveries",
                    "Recoveries",
                    "Attempts of subscriptions to get what they have missed.",
                    "reqps",
                    (Query(_rate("app_recoveries_total", "result"), "{{result}}"),),
                ),
                Panel(
                    "stream-reads",
                    "Reads of streams",
                    "Sent at once, queued, dropped as their client had gone, cut at their limit of bytes.",
                    "reqps",
                    (Query(_rate("app_stream_reads_total", "result"), "{{result}}"),),
                ),
            ),
        ),
    ),
)

PAGES: Final = (OVERVIEW, CAPACITY, ALERTS, SHUTDOWNS, WORKERS, STORE)
