"""The connections to the store, and what is read from it."""

from __future__ import annotations

from scripts.dashboards.panels import Page, Panel, Query
from scripts.dashboards.queries import of, rate_of

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
                        Query(f"min by (instance) ({of('app_broker_up')})", "{{instance}} up"),
                        Query(
                            f"timestamp({of('app_broker_last_message_timestamp_seconds')})"
                            f" - {of('app_broker_last_message_timestamp_seconds')}",
                            "{{instance}} seconds since its canary",
                        ),
                    ),
                ),
                Panel(
                    "publications",
                    "Publications",
                    "Accepted by the broker from this service's clients and backends.",
                    "reqps",
                    (Query(rate_of("app_publications_total"), "published"),),
                ),
                Panel(
                    "recoveries",
                    "Recoveries",
                    "Attempts of subscriptions to get what they have missed.",
                    "reqps",
                    (Query(rate_of("app_recoveries_total", "result"), "{{result}}"),),
                ),
                Panel(
                    "stream-reads",
                    "Reads of streams",
                    "Sent at once, queued, dropped as their client had gone, cut at their limit of bytes.",
                    "reqps",
                    (Query(rate_of("app_stream_reads_total", "result"), "{{result}}"),),
                ),
            ),
        ),
    ),
)
