"""The eleven alerts as they were given, word for word, and cases that show their flaws.

`expr`, `wait`, `severity` and `team` are those of the given document; `flaw` and `ours` are the texts of
docs/alerts.md. Each demonstration shows that the given rule is wrong and ours is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.rules.timeline import (
    Seen,
    Series,
    add,
    app,
    climb,
    firing,
    gone,
    hold,
    moment,
    of,
    pending,
)

At = Mapping[str, Sequence[Seen]]


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What happens, and the alerts of the given rule and of ours."""

    name: str
    series: Sequence[Series]
    given: At
    ours: At


@dataclass(frozen=True, slots=True)
class Given:
    expr: str
    wait: str
    severity: str
    team: str
    flaw: str
    ours: str
    shows: Sequence[Demonstration]


def _connections(*instances: str, value: float) -> list[Series]:
    return [app("app_active_connections", hold(value, "10m"), instance=i) for i in instances]


def _a(state: list[Seen], **labels: str) -> list[Seen]:
    """The given rules keep every label of the series."""
    return [Seen(one.state, {"job": "websocket-app", "instance": "a", **labels}) for one in state]


GIVEN: dict[str, Given] = {
    "NoActiveConnections": Given(
        "app_active_connections == 0", "60s", "critical", "websocket",
        "One idle replica of a busy cluster pages; and it does not fire in the outage that it"
        " describes, because there are no series then.",
        "The sum over the cluster, and 0 where there is no series.",
        [Demonstration("one idle replica",
                       [*_connections("a", value=0), *_connections("b", value=500)],
                       {"5m": _a(firing())}, {"5m": []}),
         Demonstration("total outage", [app("app_active_connections", hold(9, "1m"), gone("9m"))],
                       {"9m": []}, {"9m": firing()})]),
    "HighErrorRate": Given(
        "rate(app_errors_total[5m]) > 10", "2m", "critical", "websocket",
        "`rate` is per second and the text says per minute: silent at 590 errors a minute. Each"
        " series is judged alone.",
        "The sum, times 60.",
        [Demonstration("590 errors a minute",
                       [app("app_errors_total", climb(590 / 60, "20m"), type="broker")],
                       {"15m": []}, {"15m": firing()})]),
    "ServiceDown": Given(
        'up{job="websocket-app"} == 0', "30s", "critical", "websocket",
        "A target that leaves DNS discovery has no `up` at all; and a supervisor whose workers"
        " are all dead still answers the scrape.",
        "Also without a live worker, and one alert for the whole cluster while no replica is"
        " healthy.",
        [Demonstration("the container disappears from the DNS",
                       [app("up", hold(1, "1m"), gone("5m")),
                        app("app_workers_alive", hold(2, "1m"), gone("5m"))],
                       {"5m": []}, {"5m": firing()}),
         Demonstration("all workers are dead",
                       [app("up", hold(1, "5m")), app("app_workers_alive", hold(0, "5m")),
                        app("up", hold(1, "5m"), instance="b"),
                        app("app_workers_alive", hold(2, "5m"), instance="b")],
                       {"4m": []}, {"4m": _a(firing())})]),
    "HighMemoryUsage": Given(
        "(process_resident_memory_bytes / process_virtual_memory_bytes) * 100 > 85", "5m",
        "warning", "websocket",
        "Resident of virtual memory is no utilisation: 480 MB of a limit of 512 MB read as 24 %"
        " when 2 GB are mapped; and workers in multiprocess mode have no `process_*`.",
        "The working set of the cgroup, of its limit.",
        [Demonstration("480 MB of 512 MB",
                       [app("process_resident_memory_bytes", hold(480e6, "10m")),
                        app("process_virtual_memory_bytes", hold(2000e6, "10m")),
                        app("app_memory_working_set_bytes", hold(480e6, "10m")),
                        app("app_memory_limit_bytes", hold(512e6, "10m"))],
                       {"9m": []}, {"9m": _a(firing())})]),
    "SlowShutdownTime": Given(
        "histogram_quantile(0.95, rate(app_shutdown_duration_seconds_bucket[5m])) > 5", "5m",
        "warning", "websocket",
        "One slow shutdown stays in a window of 5 minutes for less than 5 minutes, so that"
        " `for: 5m` is never met; each replica is judged alone.",
        "A window of 15 minutes, summed by `le`.",
        [Demonstration("a shutdown of 8 s",
                       [app("app_shutdown_duration_seconds_bucket", hold(0, "5m"),
                            add(count, "20m"), le=le)
                        for le, count in (("5", 0), ("7.5", 0), ("10", 1), ("+Inf", 1))],
                       {"9m45s": _a(pending()), "10m": [], "12m": []}, {"12m": firing()})]),
    "LowMessageThroughput": Given(
        "rate(app_messages_total[5m]) < 1", "10m", "warning", "websocket",
        "Fires in every idle night and for the quieter of two directions; without a series it"
        " cannot fire at all.",
        "The sum, 0 where there is none, and only while clients are connected.",
        [Demonstration("no client is connected",
                       [app("app_messages_total", hold(0, "30m"), direction="in"),
                        app("app_active_connections", hold(0, "30m"))],
                       {"20m": _a(firing(), direction="in")}, {"20m": []}),
         Demonstration("clients are connected, the counters are missing",
                       [app("app_messages_total", hold(0, "1m"), gone("29m"), direction="in"),
                        app("app_active_connections", hold(9, "30m"))],
                       {"20m": []}, {"20m": firing()})]),
    "HighConnectionChurn": Given(
        "rate(app_connections_opened_total[5m]) > 100", "5m", "warning", "websocket",
        "Each replica is judged alone: four with 90 new connections a second are silent.",
        "The sum.",
        [Demonstration("four replicas with 90 a second",
                       [app("app_connections_opened_total", climb(90, "20m"), instance=i)
                        for i in "abcd"], {"15m": []}, {"15m": firing()})]),
    "DeploymentCompleted": Given(
        "changes(app_active_connections[5m]) > 0", "", "info", "websocket",
        "Any client that joins fires it, and a deployment without clients does not.",
        "A version became ready, or another one went, less than 300 s ago, and it is the only one left.",
        [Demonstration("a client joins",
                       [app("app_active_connections", hold(1, "5m"), hold(2, "5m")),
                        app("app_deployment_timestamp_seconds", moment("-1h", "10m"),
                            version="1")], {"6m": _a(firing())}, {"6m": []}),
         Demonstration("a deployment at night",
                       [app("app_active_connections", hold(0, "10m")),
                        app("app_deployment_timestamp_seconds", moment("5m", "10m"),
                            version="2")], {"6m": []}, {"6m": firing(version="2")})]),
    "HighSessionCount": Given(
        "app_sessions_tracked > 1000", "5m", "info", "websocket",
        "The number is the whole cluster's and every replica exports it: as many alerts as"
        " replicas.",
        "The maximum over replicas: one alert.",
        [Demonstration("two replicas export the same",
                       [app("app_sessions_tracked", hold(1500, "10m"), instance=i) for i in "ab"],
                       {"9m": [*_a(firing()), *_a(firing(), instance="b")]}, {"9m": firing()})]),
    "HighCPUUsage": Given(
        '100 - (avg by(instance) (irate(node_cpu_seconds_total{mode="idle"}[5m])) * 100) > 80',
        "5m", "warning", "infrastructure",
        "`irate` uses two samples: one idle scrape starts `for` again on a host that is busy"
        " 94 % of the time.",
        "`rate` over the window.",
        [Demonstration("one idle scrape in four minutes",
                       [of("node", "node_cpu_seconds_total",
                           *[climb(share, duration) for _ in range(8)
                             for share, duration in ((0.0, "3m45s"), (1.0, "15s"))],
                           cpu="0", mode="idle")],
                       {"14m": [Seen("pending", {"instance": "a"})],
                        "26m": [Seen("pending", {"instance": "a"})]},
                       {"26m": firing(instance="a")})]),
    "HighDiskUsage": Given(
        '(node_filesystem_avail_bytes{mountpoint="/"} / node_filesystem_size_bytes{mountpoint="/"})'
        " * 100 < 10", "5m", "warning", "infrastructure",
        "Its value is the free space, and the text calls it usage; a mount that is listed twice"
        " alerts twice.",
        "The used space, the maximum by mount point.",
        [Demonstration("a root that is listed twice",
                       [of("node", f"node_filesystem_{kind}_bytes", hold(value, "10m"),
                           mountpoint="/", device=device)
                        for kind, value in (("avail", 5), ("size", 100))
                        for device in ("sda", "rootfs")],
                       {"9m": [Seen("firing", {"job": "node", "instance": "a",
                                               "mountpoint": "/", "device": device})
                               for device in ("rootfs", "sda")]},
                       {"9m": firing(instance="a", mountpoint="/")})]),
}  # fmt: skip
