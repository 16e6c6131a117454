"""How full the cluster is, what ends first and when, and how many replicas are needed."""

from __future__ import annotations

from scripts.dashboards.panels import Page, Panel, Query, Variable
from scripts.dashboards.queries import of, rate_of
from scripts.dashboards.shared_panels import UTILISATION

_ENDS_FIRST = (
    Query('job:app_connection_utilisation:ratio{job="$job"}', "connections"),
    Query(f"max ({of('app_memory_working_set_bytes')} / {of('app_memory_limit_bytes')})", "memory"),
    Query(f"max ({of('app_worker_open_fds')} / {of('app_worker_max_fds')})", "file descriptors"),
    Query(f"max (rate({of('app_worker_cpu_seconds_total')}[5m]))", "CPU of the busiest worker"),
)

_DAY = 86400
_NOTHING_LEFT = 10
# Of all replicas: one that is chosen would have no others.
_FIT = 'app_connection_capacity{job="$job"}'
_AFTER_A_LOSS = (
    f'clamp_max(sum (app_active_connections{{job="$job"}}) / (sum ({_FIT}) - max ({_FIT}) > 0), {_NOTHING_LEFT})'
    f" or 0 * sum ({_FIT}) + {_NOTHING_LEFT}"
)

CAPACITY = Page(
    "ws-capacity",
    "WebSocket cluster: capacity planning",
    "How full the cluster is, what ends first and when, and how many replicas are needed. The ceilings come from"
    " docker/capacity.yml, which `ws-cluster capacity` and `python -m benchmarks.hold` have measured.",
    (
        (
            "How full",
            (
                UTILISATION,
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
                    "How full the others are when the largest replica's clients have come to them, whichever replicas are chosen above."
                    " Above 1, some find no place; of an only replica nothing is left.",
                    "percentunit",
                    (Query(_AFTER_A_LOSS),),
                    kind="number",
                    width=6,
                    limits=(0.8, 1),
                    texts=((_NOTHING_LEFT, "nothing is left"),),
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
                        Query(f"sum ({of('app_active_connections')})", "open"),
                        Query(
                            'max_over_time(job:app_active_connections:sum{job="$job"}[1d])',
                            "peak of a day",
                        ),
                        Query(f"sum ({of('app_connection_capacity')})", "fit"),
                    ),
                ),
                Panel(
                    "full-in",
                    "Full in",
                    "When the connections reach the capacity, at the growth of the last six hours; 10 years if they do not grow."
                    " Red below a day, yellow below a week.",
                    "s",
                    (
                        Query(
                            f"clamp_max((sum ({of('app_connection_capacity')}) - sum ({of('app_active_connections')}))"
                            ' / clamp_min(sum (deriv(job:app_active_connections:sum{job="$job"}[6h])), 0.000001), 315360000)'
                        ),
                    ),
                    kind="number",
                    width=6,
                    floors=(_DAY, 7 * _DAY),
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
                    "By part, for the connections typed in above: the first as `ws-cluster capacity` measured it, the others with"
                    " 100,000 held through nginx. The kernel's is of both ends of each connection.",
                    "bytes",
                    (
                        Query("$connections * app_capacity_bytes_per_connection", "workers"),
                        Query(
                            "$connections * (app_capacity_hold_bytes_per_connection > 1)",
                            "{{part}}, held",
                        ),
                    ),
                    kind="bars",
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
                    "Resident memory of the workers by their connections, and what it was with 100,000 held. With few connections it is mostly the workers' own, and with"
                    " fewer than ten it is not shown.",
                    "bytes",
                    (
                        Query(
                            f"sum ({of('app_worker_resident_memory_bytes')}) / (sum ({of('app_active_connections')}) > 9)",
                            "now",
                        ),
                        Query(
                            'sum (app_capacity_hold_bytes_per_connection{part="workers"})',
                            "with 100,000 held",
                        ),
                    ),
                ),
                Panel(
                    "cpu-per-message",
                    "CPU per message",
                    "CPU time of the workers by the messages that they receive and write; with fewer than ten a second it is not shown.",
                    "s",
                    (
                        Query(
                            f"{rate_of('app_worker_cpu_seconds_total')} / ({rate_of('app_messages_total')} > 9)",
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
                            f"{of('app_memory_working_set_bytes')} / {of('app_memory_limit_bytes')}",
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
                            f"max by (instance) ({of('app_worker_open_fds')} / {of('app_worker_max_fds')})",
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
