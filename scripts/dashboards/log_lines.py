"""The log lines that Loki keeps: how many, of which events, and the lines themselves."""

from __future__ import annotations

from scripts.dashboards.links import LOGS_UID
from scripts.dashboards.overview import LOG_ERRORS
from scripts.dashboards.panels import Page, Panel, Query, Variable
from scripts.dashboards.queries import LEVELS

_APP = 'service="app",instance=~"$instance"'
_SEVERE = 'level=~"warning|error|critical"'

LOGS = Page(
    LOGS_UID,
    "WebSocket cluster: logs",
    "The lines that Alloy has sent to Loki, which the profile logs of docker/compose.yml starts. An alert's links"
    " open this page at the time around it.",
    (
        (
            "How many",
            (
                Panel(
                    "log-lines",
                    "Lines, by level",
                    "Lines of the replicas. A replica that works writes a few when it starts, stops or moves clients.",
                    "short",
                    (Query(f"sum by (level) (count_over_time({{{_APP}}}[$__auto]))", "{{level}}"),),
                    kind="stack",
                    colours=(("debug", "purple"), ("info", "blue"), *LEVELS),
                    is_of_logs=True,
                ),
                LOG_ERRORS,
                Panel(
                    "log-events",
                    "Warnings and errors, by event",
                    "The events that were written most often in the time shown. docs/reference/events.md explains each.",
                    "short",
                    (
                        Query(
                            f"topk(12, sum by (event) (count_over_time({{{_APP},{_SEVERE}}}[$__range])))",
                            "{{event}}",
                        ),
                    ),
                    kind="bars",
                    is_of_logs=True,
                    width=24,
                ),
            ),
        ),
        (
            "Lines",
            (
                Panel(
                    "log-errors-around",
                    "Warnings and errors",
                    "Lines of the replicas, the newest first. A line has the instance that the graphs have.",
                    "short",
                    (Query(f"{{{_APP},{_SEVERE}}} |= `$search`"),),
                    kind="logs",
                    is_of_logs=True,
                    width=24,
                    height=12,
                ),
                Panel(
                    "log-all",
                    "All lines of the replicas",
                    "With the level and the text that are typed in above.",
                    "short",
                    (Query(f'{{{_APP},level=~"$level"}} |= `$search`'),),
                    kind="logs",
                    is_of_logs=True,
                    width=24,
                    height=12,
                ),
                Panel(
                    "log-others",
                    "Lines of the other containers",
                    "nginx, Valkey, Prometheus, Alertmanager and the exporters.",
                    "short",
                    (Query('{service=~".+",service!="app"} |= `$search`'),),
                    kind="logs",
                    is_of_logs=True,
                    width=24,
                    height=12,
                ),
            ),
        ),
    ),
    (
        Variable(
            "level",
            "level",
            ".*",
            (
                ("all", ".*"),
                ("warnings and errors", "warning|error|critical"),
                ("errors", "error|critical"),
            ),
        ),
        Variable("search", "text", ""),
    ),
)
