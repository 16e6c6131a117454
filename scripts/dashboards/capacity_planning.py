"""How full the cluster is, what ends first and when, and how many replicas are needed."""

from __future__ import annotations

from scripts.dashboards.panels import Page, Panel, Query, Variable
from scripts.dashboards.queries import of, rate_of
from scripts.dashboards.resources import (
    DAY,
    NGINX_TAKES,
    RESOURCES,
    WEEK,
    first_to_end,
    seconds_left,
    shares,
    shares_in_a_week,
)
from scripts.dashboards.shared_panels import UTILISATION

_NOTHING_LEFT = 10
# Of all replicas: one that is chosen would have no others.
_FIT = 'app_connection_capacity{job="$job"}'
_AFTER_A_LOSS = (
    f'clamp_max(sum (app_active_connections{{job="$job"}}) / (sum ({_FIT}) - max ({_FIT}) > 0), {_NOTHING_LEFT})'
    f" or 0 * sum ({_FIT}) + {_NOTHING_LEFT}"
)

# All replicas: of those that are chosen above there may be too few.
_OPEN = 'app_active_connections{job="$job"}'
_IN_USE = 'app_memory_working_set_bytes{job="$job"}'
_MEMORY = 'app_memory_limit_bytes{job="$job"}'
# A replica is as the largest of those that run: the others may be starting.
_WORKERS = 'scalar(max (app_workers_alive{job="$job"}))'
# What was measured may be less than the limits allow, and the limits of this cluster less than those of the measuring machine.
_FIT_IN_ONE = (
    f"(clamp_max(max ({_FIT}), scalar(app_capacity_connections_per_worker) * {_WORKERS}) > 0)"
)
# A core that does nothing else has no room for a roll or a burst: the limit at which "How full each resource is" is yellow.
_SHARE_OF_A_CORE = 0.6
_DELIVERED_BY_ONE = (
    f"(app_capacity_messages_per_second_per_core * {_WORKERS} * {_SHARE_OF_A_CORE} > 0)"
)
# nginx and the store have memory of their own.
_BYTES = 'scalar(sum (app_capacity_hold_bytes_per_connection{part=~"workers|supervisor|kernel"}))'
_WITHOUT_CLIENTS = f"clamp_min(max ({_IN_USE} - {_BYTES} * {_OPEN}), 0)"
_ROOM_IN_ONE = f"(0.8 * max ({_MEMORY}) - {_WITHOUT_CLIENTS} > 0)"
_FOR_EACH_RESOURCE = (
    Query(f"ceil($connections / {_FIT_IN_ONE})", "connections"),
    Query(f"ceil($deliveries / max {_DELIVERED_BY_ONE})", "deliveries"),
    Query(f"ceil($connections * {_BYTES} / {_ROOM_IN_ONE})", "memory"),
)
_MOST = " or ".join(
    f'label_replace({query.expr}, "resource", "{query.legend}", "", "")'
    for query in _FOR_EACH_RESOURCE
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
                    "How full each resource is",
                    "Use of each resource now; the longest bar is the next limit. nginx and Valkey are there in containers, nginx by the number of"
                    " clients typed in above. More replicas help against none of these two.",
                    "percentunit",
                    shares(RESOURCES),
                    kind="bars",
                    width=8,
                    limits=(0.6, 0.8),
                ),
                Panel(
                    "first-to-end",
                    "First to end",
                    'The shortest of "Full in" beside its name: the resource that is full before all others, if all go on growing as in the last'
                    " six hours; none, in 10 years, if none grows. Red below a day, yellow below a week.",
                    "s",
                    (first_to_end(RESOURCES),),
                    kind="named number",
                    width=5,
                    floors=(DAY, WEEK),
                ),
                Panel(
                    "after-a-loss",
                    "If a replica is lost",
                    "How full the others are when the largest replica's clients have come to them, whichever replicas are chosen above."
                    " Above 1, some find no place; of an only replica nothing is left.",
                    "percentunit",
                    (Query(_AFTER_A_LOSS),),
                    kind="number",
                    width=5,
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
                    width=8,
                ),
                Panel(
                    "full-in",
                    "Full in",
                    "When each resource ends at the growth of the last six hours (the slope of predict_linear): the shortest bar is the first; 10 years"
                    " if it does not grow. A full bar is four weeks or more. Red below a day, yellow below a week.",
                    "s",
                    seconds_left(RESOURCES),
                    kind="bars",
                    width=8,
                    floors=(DAY, WEEK),
                    most=4 * WEEK,
                ),
                Panel(
                    "in-a-week",
                    "How full in a week",
                    "Use of each resource if the growth of the last six hours goes on (predict_linear).",
                    "percentunit",
                    shares_in_a_week(RESOURCES),
                    kind="bars",
                    width=8,
                    limits=(0.8, 1),
                ),
            ),
        ),
        (
            "Replicas for what you expect",
            (
                Panel(
                    "replicas-needed",
                    "Replicas needed",
                    "For the connections and deliveries per second typed in above: the most of what stands beside, and one to spare; and"
                    " how many run. A replica is taken to be as large as the largest that runs.",
                    "short",
                    (
                        Query(f"1 + max ({_MOST})", "needed"),
                        Query('count (app_workers_alive{job="$job"} > 0)', "running"),
                    ),
                    kind="number",
                    width=8,
                ),
                Panel(
                    "replicas-by-resource",
                    "Replicas, by what they are needed for",
                    "None to spare. Connections: as fit by this cluster's limits, and no more than were measured. Deliveries, which are messages written to"
                    " clients: 60 % of what a core was measured to write, one core per worker. Memory: of workers and kernel, within 80 % of the limit;"
                    " nginx and Valkey have their own.",
                    "short",
                    _FOR_EACH_RESOURCE,
                    kind="bars",
                    width=8,
                ),
                Panel(
                    "memory-for-connections",
                    "Memory for the connections",
                    "By part, for the connections typed in above, as measured with 100,000 held through nginx. The kernel's is of"
                    " both ends of each connection.",
                    "bytes",
                    (
                        Query(
                            "$connections * (app_capacity_hold_bytes_per_connection > 1)",
                            "{{part}}",
                        ),
                        Query(
                            "$connections * sum (app_capacity_hold_bytes_per_connection)", "total"
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
        Variable("deliveries", "deliveries/s", "10000"),
        NGINX_TAKES,
    ),
)
