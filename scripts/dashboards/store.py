"""The connections to the store, what is read from it, and what the exporters of Valkey and nginx say."""

from __future__ import annotations

from scripts.dashboards.panels import Page, Panel, Query
from scripts.dashboards.queries import RATE, of, rate_of
from scripts.dashboards.resources import NGINX_TAKES, SHARED, shares

# 0 until a worker has heard its first one.
_CANARY = of("app_broker_last_message_timestamp_seconds")
_REDIS = '{job="redis"}'
_NGINX = '{job="nginx"}'


def _redis(
    name: str,
    title: str,
    text: str,
    unit: str,
    *queries: Query,
    limits: tuple[float, ...] = (),
    floors: tuple[float, ...] = (),
) -> Panel:
    return Panel(name, title, text, unit, queries, job="redis", limits=limits, floors=floors)


def _nginx(name: str, title: str, text: str, unit: str, *queries: Query) -> Panel:
    return Panel(name, title, text, unit, queries, job="nginx")


_LIMITS = Panel(
    "store-limits",
    "How full nginx and the store are",
    "All replicas share them: more replicas do not help. Clients of nginx by what is typed in above, memory by maxmemory, CPU of the one"
    " core that runs commands.",
    "percentunit",
    shares(SHARED),
    kind="bars",
    width=24,
    limits=(0.6, 0.8),
    job="redis",
    height=6,
)
_EXPORTERS = (
    ("Limits that all replicas share", (_LIMITS,)),
    (
        "Valkey or Redis, by its exporter",
        (
            _redis(
                "redis-memory",
                "Memory of the store",
                "Used, and the limit (maxmemory): a store that is full evicts keys that have a time to live.",
                "bytes",
                Query(f"redis_memory_used_bytes{_REDIS}", "used"),
                Query(f"redis_memory_max_bytes{_REDIS} > 0", "limit"),
            ),
            _redis(
                "redis-commands",
                "Commands of the store",
                "Processed per second. One core does some ten thousand: then it is time for more shards.",
                "ops",
                Query(f"rate(redis_commands_processed_total{_REDIS}{RATE})", "commands"),
            ),
            _redis(
                "redis-cpu",
                "CPU of the store",
                "Cores. Valkey runs commands on one: above 0.8 the commands wait for each other.",
                "short",
                Query(
                    f"rate(redis_cpu_user_seconds_total{_REDIS}{RATE})"
                    f" + rate(redis_cpu_sys_seconds_total{_REDIS}{RATE})",
                    "cores",
                ),
                limits=(0.8, 0.95),
            ),
            _redis(
                "redis-evictions",
                "Keys evicted and expired",
                "Expired is the end of sessions and histories. Evicted is data lost for want of memory.",
                "cps",
                Query(f"rate(redis_evicted_keys_total{_REDIS}{RATE})", "evicted"),
                Query(f"rate(redis_expired_keys_total{_REDIS}{RATE})", "expired"),
            ),
            _redis(
                "redis-clients",
                "Clients of the store",
                "Connections, and those that were refused since it started because maxclients was reached.",
                "short",
                Query(f"redis_connected_clients{_REDIS}", "connected"),
                Query(f"redis_rejected_connections_total{_REDIS}", "refused"),
            ),
            _redis(
                "redis-persistence",
                "Writing to the disk",
                "1 while Valkey answers and its last write of the append-only file has worked.",
                "short",
                Query(f"redis_up{_REDIS}", "answers"),
                Query(f"redis_aof_last_write_status{_REDIS}", "append-only file"),
                floors=(1,),
            ),
        ),
    ),
    (
        "nginx, by its exporter",
        (
            _nginx(
                "nginx-connections",
                "Connections of nginx",
                "Those that are open, a client's WebSocket among them, by what they do.",
                "short",
                Query(f"nginx_connections_active{_NGINX}", "open"),
                Query(f"nginx_connections_writing{_NGINX}", "upgraded or answering"),
                Query(f"nginx_connections_waiting{_NGINX}", "waiting for a request"),
            ),
            _nginx(
                "nginx-requests",
                "Requests and connections of nginx",
                "Per second. Accepted but not handled is a connection for which nginx had no place: raise its file limit.",
                "reqps",
                Query(f"rate(nginx_http_requests_total{_NGINX}{RATE})", "requests"),
                Query(f"rate(nginx_connections_accepted{_NGINX}{RATE})", "accepted"),
                Query(
                    f"rate(nginx_connections_accepted{_NGINX}{RATE})"
                    f" - rate(nginx_connections_handled{_NGINX}{RATE})",
                    "not handled",
                ),
            ),
        ),
    ),
)

STORE = Page(
    "ws-store",
    "WebSocket cluster: Redis and nginx",
    "The connections to Valkey or Redis, what is read from it, and nginx. The exporters are in the containers only.",
    (
        (
            "Broker",
            (
                Panel(
                    "broker",
                    "Broker",
                    "1 while every connection of a replica to the broker works. BrokerDisconnected fires at 0.",
                    "short",
                    (Query(f"min by (instance) ({of('app_broker_up')})", "{{instance}}"),),
                    floors=(1,),
                ),
                Panel(
                    "broker-canary",
                    "Since the last canary",
                    "How long ago the worker that is furthest behind has heard its own canary, which it publishes about once a"
                    " second. Above a minute fires BrokerDeaf.",
                    "s",
                    (Query(f"timestamp({_CANARY} > 0) - ({_CANARY} > 0)", "{{instance}}"),),
                    limits=(60,),
                ),
                Panel(
                    "publications",
                    "Publications",
                    "Accepted by the broker from this service's clients and backends.",
                    "mps",
                    (Query(rate_of("app_publications_total"), "published"),),
                    width=8,
                ),
                Panel(
                    "recoveries",
                    "Recoveries",
                    "Attempts of subscriptions to get what they have missed.",
                    "ops",
                    (Query(rate_of("app_recoveries_total", "result"), "{{result}}"),),
                    width=8,
                ),
                Panel(
                    "stream-reads",
                    "Reads of streams",
                    "Sent at once, queued, dropped as their client had gone, cut at their limit of bytes.",
                    "rps",
                    (Query(rate_of("app_stream_reads_total", "result"), "{{result}}"),),
                    width=8,
                ),
            ),
        ),
        *_EXPORTERS,
    ),
    (NGINX_TAKES,),
)
