"""How long workers take to stop and to start."""

from __future__ import annotations

from scripts.dashboards.panels import Page, Panel, Query
from scripts.dashboards.queries import of, quantile


def _histogram(name: str, title: str, text: str, family: str) -> Panel:
    buckets = f"round(sum by (le) (increase({of(f'{family}_bucket')}[$__range])))"
    query = Query(buckets, "{{le}}")
    return Panel(name, title, text, "short", (query,), kind="histogram", height=12)


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
                            quantile(share, "app_shutdown_duration_seconds", window="[15m]"),
                            f"p{share * 100:g}",
                        )
                        for share in (0.5, 0.95, 0.99)
                    ),
                    limits=(5,),
                ),
                Panel(
                    "shutdown-phases",
                    "Phases, p95",
                    "Clients are closed, publishes flushed, sessions detached, the process exits. 5 s are what all together may take.",
                    "s",
                    (
                        Query(
                            quantile(0.95, "app_shutdown_phase_duration_seconds", "phase", "[15m]"),
                            "{{phase}}",
                        ),
                    ),
                    limits=(5,),
                ),
                Panel(
                    "worker-exits",
                    "How workers ended",
                    "Clean, killed after the grace period, or crashed; in 15 minutes.",
                    "short",
                    (
                        Query(
                            f"sum by (outcome) (increase({of('app_worker_exits_total')}[15m]))",
                            "{{outcome}}",
                        ),
                    ),
                    colours=(("clean", "green"), ("killed", "orange"), ("crashed", "red")),
                ),
                Panel(
                    "worker-restarts",
                    "Restarts",
                    "Workers restarted in 15 minutes, by reason. More than two crashes fire WorkerCrashLooping.",
                    "short",
                    (
                        Query(
                            f"sum by (reason) (increase({of('app_worker_restarts_total')}[15m]))",
                            "{{reason}}",
                        ),
                    ),
                    limits=(2.5,),
                    colours=(
                        ("roll", "green"),
                        ("boot", "yellow"),
                        ("hung", "orange"),
                        ("crash", "red"),
                    ),
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
                            f"time() - max by (version) ({of('app_deployment_timestamp_seconds')})",
                            "{{version}}",
                        ),
                    ),
                ),
                Panel(
                    "startup-time",
                    "Time of starts",
                    "From a worker's start to ready: yellow from 3 s on, red from 10. A roll waits for each.",
                    "s",
                    tuple(
                        Query(
                            quantile(share, "app_startup_duration_seconds", window="[15m]"),
                            f"p{share * 100:g}",
                        )
                        for share in (0.5, 0.95)
                    ),
                    limits=(3, 10),
                ),
            ),
        ),
        (
            "How long they took",
            (
                _histogram(
                    "shutdown-histogram",
                    "Shutdowns, by their time",
                    "How many took up to so many seconds, and more than the bar above, in the time shown.",
                    "app_shutdown_duration_seconds",
                ),
                _histogram(
                    "startup-histogram",
                    "Starts, by their time",
                    "How many took up to so many seconds, and more than the bar above, in the time shown.",
                    "app_startup_duration_seconds",
                ),
            ),
        ),
    ),
)
