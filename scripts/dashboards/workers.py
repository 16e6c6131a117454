"""The event loops, the CPU and the metrics of the workers, and how even the replicas are."""

from __future__ import annotations

from typing import Final

from scripts.dashboards.panels import Page, Panel, Query
from scripts.dashboards.queries import of

CHOSEN: Final = ',worker=~"$worker"'

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
                            f"sum by (instance, worker) (rate({of('app_worker_cpu_seconds_total', CHOSEN)}[2m]))",
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
                    (
                        Query(
                            of("app_worker_resident_memory_bytes", CHOSEN),
                            "{{instance}} {{worker}}",
                        ),
                    ),
                ),
                Panel(
                    "balance",
                    "Balance",
                    "How far the worker that is furthest from the mean is from it, as a share of the mean: 0 is even."
                    " Above 0.5 for ten minutes fires ConnectionsUnbalanced, if workers have more than 50 on average.",
                    "percentunit",
                    (Query('job:app_connection_skew:ratio{job="$job"}', "skew"),),
                    limits=(0.5,),
                ),
                Panel(
                    "worker-connections",
                    "Connections of each worker",
                    "Open connections, and their mean. balance.enabled moves what one has above the others.",
                    "short",
                    (
                        Query(of("app_worker_connections", CHOSEN), "{{instance}} {{worker}}"),
                        Query('job:app_worker_connections:avg{job="$job"}', "mean"),
                    ),
                ),
                Panel(
                    "connections-shed",
                    "Connections moved",
                    "Connections per minute that workers close so that their clients reconnect elsewhere.",
                    "cpm",
                    (
                        Query(
                            f"sum by (instance) (rate({of('app_connections_shed_total')}[2m])) * 60",
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
                    (Query(of("scrape_duration_seconds"), "{{instance}}"),),
                    limits=(1,),
                ),
                Panel(
                    "metrics-collection",
                    "Metric files",
                    "Files read, and files that could not be read in five minutes, which fire MetricsFilesCorrupt.",
                    "short",
                    (
                        Query(of("app_metrics_files"), "{{instance}} read"),
                        Query(
                            f"increase({of('app_metrics_collect_errors_total')}[5m])",
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
    chooses_worker=True,
)
