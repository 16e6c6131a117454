"""The cases of the eleven given alerts.

Just above and just below a threshold means 4 % off it if the value is a rate (a rate on the threshold
is 10.000000000000002), and exactly on it if the value is a gauge.
"""

from __future__ import annotations

from tests.rules.timeline import (
    Case,
    Piece,
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

# 10.4, 9.6 and 6 per minute.
ABOVE, BELOW, HALF = 10.4 / 60, 9.6 / 60, 6 / 60


def burst(per_second: float) -> tuple[Piece, ...]:
    """Nothing for 5 minutes, a rate for 10, nothing for 10."""
    return hold(0, "5m"), climb(per_second, "10m"), add(0, "10m")


def shutdowns(four: int, five: int, six: int, *, instance: str = "a") -> list[Series]:
    """Of so many shutdowns up to 4, 5 and 6 s, all at minute 5."""

    def bucket(le: str, count: int) -> Series:
        pieces = hold(0, "5m"), add(count, "30m")
        return app("app_shutdown_duration_seconds_bucket", *pieces, instance=instance, le=le)

    counts = {"1": 0, "4": four, "5": five, "6": six, "+Inf": six}
    return [bucket(le, count) for le, count in counts.items()]


def idle(share: float, cpu: str, instance: str = "a") -> Series:
    pieces = climb(1, "5m"), climb(share, "15m"), climb(1, "10m")
    return of("node", "node_cpu_seconds_total", *pieces, instance=instance, cpu=cpu, mode="idle")


def disk(kind: str, *pieces: Piece, instance: str = "a", device: str = "sda") -> Series:
    name = f"node_filesystem_{kind}_bytes"
    return of("node", name, *pieces, instance=instance, mountpoint="/", device=device)


SEED: dict[str, list[Case]] = {
    "NoActiveConnections": [
        Case(
            "nobody is connected for a minute",
            "fires boundary resolves",
            [app("app_active_connections", hold(5, "2m"), hold(0, "2m"), hold(1, "1m"))],
            {"1m45s": [], "2m": pending(), "2m45s": pending(), "3m": firing(),
             "3m45s": firing(), "4m": []},
            ("3m", ("Service may be down or experiencing issues. No active connections for 60"
             " seconds (now 0).")),
        ),
        Case("one connection is enough", "below",
             [app("app_active_connections", hold(1, "5m"))], {"3m": [], "5m": []}),
        Case("the series vanish with everything else", "vanishes",
             [app("app_active_connections", hold(5, "1m"), gone("3m"))],
             {"45s": [], "1m": pending(), "2m": firing()}),
        Case("the series vanish while nobody is connected: `for` is not started again", "vanishes",
             [app("app_active_connections", hold(0, "30s"), gone("3m"))], {"1m": firing()}),
        Case("an idle replica of a busy cluster is nobody's page", "replicas",
             [app("app_active_connections", hold(0, "5m")),
              app("app_active_connections", hold(3, "3m"), hold(0, "2m"), instance="b")],
             {"2m": [], "3m": pending(), "4m": firing()}),
    ],
    "HighErrorRate": [
        Case("10.4 a minute", "fires boundary resolves",
             [app("app_errors_total", *burst(ABOVE), type="broker"),
              app("app_errors_total", hold(0, "25m"), type="handler")],
             {"9m30s": [], "9m45s": pending(), "11m30s": pending(), "11m45s": firing(),
              "14m45s": firing(), "15m": []},
             ("11m45s", "Error rate is 10.4 errors per minute")) ,
        Case("9.6 a minute", "below",
             [app("app_errors_total", *burst(BELOW), type="broker")], {"12m": [], "14m45s": []}),
        Case("the service goes and takes its counters along", "vanishes",
             [app("app_errors_total", climb(0.2, "10m"), gone("10m"), type="broker")],
             {"9m45s": firing(), "16m": []}),
        Case("two replicas, 6 a minute each", "replicas",
             [app("app_errors_total", *burst(HALF), type="broker"),
              app("app_errors_total", *burst(HALF), type="store", instance="b")],
             {"13m": firing()}),
    ],
    "ServiceDown": [
        Case("a replica does not answer", "fires boundary resolves replicas",
             [app("up", hold(1, "1m"), hold(0, "2m"), hold(1, "2m")),
              app("app_workers_alive", hold(2, "1m"), gone("2m"), hold(2, "2m")),
              app("up", hold(1, "5m"), instance="b"),
              app("app_workers_alive", hold(2, "5m"), instance="b")],
             {"45s": [], "1m": pending(job="websocket-app", instance="a"),
              "1m15s": pending(job="websocket-app", instance="a"),
              "1m30s": firing(job="websocket-app", instance="a"),
              "2m45s": firing(job="websocket-app", instance="a"), "3m": []},
             ("1m30s", ("The WebSocket application is not responding to health checks: a has 0"
              " workers that answer"))),
        Case("one worker that lives is enough", "below",
             [app("up", hold(1, "5m")), app("app_workers_alive", hold(1, "5m"))], {"5m": []}),
        Case("the supervisor answers and all its workers are dead, then it goes, too", "fires",
             [app("up", hold(1, "1m15s"), hold(0, "2m")),
              app("app_workers_alive", hold(0, "1m15s"), gone("2m")),
              app("up", hold(1, "5m"), instance="b"),
              app("app_workers_alive", hold(1, "5m"), instance="b")],
             {"0s": pending(job="websocket-app", instance="a"),
              "1m": firing(job="websocket-app", instance="a"),
              "1m15s": firing(job="websocket-app", instance="a")}),
        Case("discovery knows no replica any more", "vanishes resolves",
             [app("up", hold(1, "1m"), gone("2m"), hold(1, "1m")),
              app("app_workers_alive", hold(2, "1m"), gone("2m"), hold(2, "1m"))],
             {"45s": [], "1m": pending(), "1m15s": pending(), "1m30s": firing(), "3m": []},
             ("1m30s", ("The WebSocket application is not responding to health checks: 0 replicas"
              " are healthy"))),
        Case("the only replica has no worker", "fires",
             [app("up", hold(1, "2m")), app("app_workers_alive", hold(0, "2m"))],
             {"1m": [*firing(job="websocket-app", instance="a"), *firing()]}),
        Case("both replicas are down: one alert each, and one for the whole", "replicas",
             [app("up", hold(0, "2m")), app("up", hold(0, "1m"), gone("1m"), instance="b")],
             {"45s": [*firing(job="websocket-app", instance="a"),
                      *firing(job="websocket-app", instance="b"), *firing()],
              "1m": [*firing(job="websocket-app", instance="a"), *firing()]}),
    ],
    "HighMemoryUsage": [
        Case("86 % of the limit", "fires boundary resolves",
             [app("app_memory_working_set_bytes", hold(850, "2m"), hold(860, "8m"), hold(850, "1m")),
              app("app_memory_limit_bytes", hold(1000, "11m"))],
             {"1m45s": [], "2m": pending(job="websocket-app", instance="a"),
              "6m45s": pending(job="websocket-app", instance="a"),
              "7m": firing(job="websocket-app", instance="a"),
              "9m45s": firing(job="websocket-app", instance="a"), "10m": []},
             ("7m", "Memory usage of a is 86.0% of its limit")),
        Case("85 % is the limit and not above it", "below",
             [app("app_memory_working_set_bytes", hold(850, "10m")),
              app("app_memory_limit_bytes", hold(1000, "10m"))], {"9m": []}),
        Case("the replica goes", "vanishes",
             [app("app_memory_working_set_bytes", hold(900, "7m"), gone("2m")),
              app("app_memory_limit_bytes", hold(1000, "7m"), gone("2m"))],
             {"6m45s": firing(job="websocket-app", instance="a"), "7m": []}),
        Case("only the replica that is full", "replicas",
             [app("app_memory_working_set_bytes", hold(900, "7m"), instance="b"),
              app("app_memory_limit_bytes", hold(1000, "7m"), instance="b"),
              app("app_memory_working_set_bytes", hold(900, "7m")),
              app("app_memory_limit_bytes", hold(2000, "7m"))],
             {"6m": firing(job="websocket-app", instance="b")}),
    ],
    "SlowShutdownTime": [
        Case("6 of 100 take longer than 5 s", "fires boundary resolves", shutdowns(90, 94, 100),
             {"4m45s": [], "5m": pending(), "9m45s": pending(), "10m": firing(),
              "19m45s": firing(), "20m": []},
             ("10m", "95th percentile shutdown time is 5.167s")),
        Case("4 of 100 take longer than 5 s", "below", shutdowns(90, 96, 100),
             {"10m": [], "15m": []}),
        Case("the 95th percentile is 5 s", "below", shutdowns(90, 95, 100), {"15m": []}),
        Case("the replica goes after its slow shutdown", "vanishes",
             [app("app_shutdown_duration_seconds_bucket", hold(0, "5m"), add(1, "5m"), gone("20m"),
                  le=le) for le in ("6", "+Inf")]
             + [app("app_shutdown_duration_seconds_bucket", hold(0, "10m"), gone("20m"), le="5")],
             {"10m": firing(), "25m": []}),
        Case("one slow exit among those of a large cluster", "replicas",
             [*shutdowns(0, 0, 1), *shutdowns(99, 99, 99, instance="b")], {"12m": []}),
        Case("5 of 105 on two replicas", "replicas",
             [*shutdowns(45, 50, 50), *shutdowns(45, 50, 55, instance="b")], {"12m": []}),
    ],
    "LowMessageThroughput": [
        Case("0.96 messages a second for one client", "fires boundary resolves",
             [app("app_messages_total", climb(2, "10m"), climb(0.96, "20m"), climb(2, "10m"),
                  direction="in"),
              app("app_active_connections", hold(1, "40m")),
              app("app_active_connections", hold(0, "40m"), instance="b")],
             {"14m30s": [], "14m45s": pending(), "24m30s": pending(), "24m45s": firing(),
              "29m45s": firing(), "30m15s": []},
             ("24m45s", "Message throughput is 960m messages per second")),
        Case("1.04 messages a second", "below",
             [app("app_messages_total", climb(1.04, "40m"), direction="in"),
              app("app_active_connections", hold(9, "40m"))], {"30m": []}),
        Case("nobody is connected, so nobody waits", "below",
             [app("app_messages_total", hold(0, "30m"), direction="in"),
              app("app_active_connections", hold(0, "30m"))], {"20m": []}),
        Case("the counters are missing although clients are there", "vanishes",
             [app("app_messages_total", climb(5, "5m"), gone("20m"), direction="in"),
              app("app_active_connections", hold(9, "25m"))], {"20m": firing()},
             ("20m", "Message throughput is 0 messages per second")),
        Case("everything is gone: that is another alert's", "vanishes",
             [app("app_messages_total", hold(0, "15m"), gone("20m"), direction="in"),
              app("app_active_connections", hold(9, "15m"), gone("20m"))],
             {"14m45s": firing(), "15m": []}),
        Case("two replicas with 0.6 a second each, in and out", "replicas",
             [app("app_messages_total", climb(0.6, "40m"), direction="in"),
              app("app_messages_total", climb(0.6, "40m"), direction="out", instance="b"),
              app("app_active_connections", hold(9, "40m"))], {"30m": []}),
    ],
    "HighConnectionChurn": [
        Case("104 a second", "fires boundary resolves",
             [app("app_connections_opened_total", *burst(104))],
             {"9m30s": [], "9m45s": pending(), "14m30s": pending(), "14m45s": firing(), "15m": []},
             ("14m45s", "Connection rate is 104 connections per second")),
        Case("96 a second", "below", [app("app_connections_opened_total", climb(96, "20m"))],
             {"18m": []}),
        Case("exactly 100 a second", "below",
             [app("app_connections_opened_total", climb(100, "20m"))], {"18m": []}),
        Case("the replica goes", "vanishes",
             [app("app_connections_opened_total", climb(300, "10m"), gone("10m"))],
             {"9m45s": firing(), "15m": []}),
        Case("four replicas with 26 a second each", "replicas",
             [app("app_connections_opened_total", climb(26, "20m"), instance=i) for i in "abcd"],
             {"15m": firing()}),
    ],
    "DeploymentCompleted": [
        Case("workers became ready", "fires boundary resolves",
             [app("app_deployment_timestamp_seconds", moment("-1h", "2m"), moment("2m", "10m"),
                  version="1")],
             {"1m45s": [], "2m": firing(version="1"), "6m45s": firing(version="1"), "7m": []},
             ("6m45s", ("Service activity detected, possible deployment or restart: version 1 became"
              " ready 4m 45s ago"))),
        Case("nobody deployed anything", "below",
             [app("app_deployment_timestamp_seconds", moment("-5m", "5m"), version="1")],
             {"0s": [], "4m": []}),
        Case("4m54s ago, and 5m6s ago", "boundary",
             [app("app_deployment_timestamp_seconds", moment("-294s", "1m"), version="1")],
             {"0s": firing(version="1"), "15s": []}),
        Case("32 s more are too many", "below",
             [app("app_deployment_timestamp_seconds", moment("-306s", "1m"), version="1")],
             {"0s": []}),
        Case("the newest worker of a version counts", "boundary",
             [app("app_deployment_timestamp_seconds", moment("-330s", "3m"), version="1"),
              app("app_deployment_timestamp_seconds", moment("-270s", "3m"), version="1",
                  instance="b")],
             {"0s": firing(version="1"), "45s": []}),
        Case("it has gone again", "vanishes",
             [app("app_deployment_timestamp_seconds", moment("0s", "1m"), gone("5m"), version="1")],
             {"45s": firing(version="1"), "1m": []}),
        Case("the last replica of the old version ends the roll", "replicas",
             [app("app_deployment_timestamp_seconds", moment("-1h", "2m"), gone("5m"), version="1"),
              app("app_deployment_timestamp_seconds", moment("-1h", "1m"), gone("5m"), version="1",
                  instance="b"),
              app("app_deployment_timestamp_seconds", moment("1m", "9m"), version="2",
                  instance="c"),
              app("app_deployment_timestamp_seconds", moment("2m", "9m"), version="2",
                  instance="d")],
             {"1m45s": [], "2m": firing(version="2"), "6m45s": firing(version="2"), "7m": []}),
        Case("the old replicas take longer to end than five minutes", "boundary",
             [app("app_deployment_timestamp_seconds", moment("-1h", "8m"), gone("8m"), version="1"),
              app("app_deployment_timestamp_seconds", moment("30s", "15m"), version="2",
                  instance="b"),
              app("app_deployment_timestamp_seconds", moment("1m", "15m"), version="2",
                  instance="c")],
             {"7m45s": [], "8m": firing(version="2"), "12m30s": firing(version="2"), "13m": []},
             ("8m", ("Service activity detected, possible deployment or restart: version 2 became"
              " ready 7m 0s ago"))),
    ],
    "HighSessionCount": [
        Case("1001 sessions", "fires boundary resolves",
             [app("app_sessions_tracked", hold(1000, "1m"), hold(1001, "7m"), hold(1000, "1m"))],
             {"45s": [], "1m": pending(), "5m45s": pending(), "6m": firing(), "8m": []},
             ("6m", "1.001k sessions are currently tracked")),
        Case("1000 sessions", "below", [app("app_sessions_tracked", hold(1000, "9m"))], {"8m": []}),
        Case("the last replica goes", "vanishes",
             [app("app_sessions_tracked", hold(1500, "6m"), gone("3m"))],
             {"5m45s": firing(), "6m": []}),
        Case("each replica tells the same number, one is late", "replicas",
             [app("app_sessions_tracked", hold(600, "5m"), hold(1200, "7m")),
              app("app_sessions_tracked", hold(600, "12m"), instance="b")],
             {"5m": pending(), "4m45s": [], "10m": firing()}),
    ],
    "HighCPUUsage": [
        Case("81 % of two cores", "fires boundary resolves", [idle(0, "0"), idle(0.38, "1")],
             {"9m30s": [], "9m45s": pending(instance="a"), "14m30s": pending(instance="a"),
              "14m45s": firing(instance="a"), "19m45s": firing(instance="a"), "20m": []},
             ("14m45s", "CPU usage of a is 81.0%")),
        Case("79 %", "below", [idle(0.21, "0"), idle(0.21, "1")], {"19m": []}),
        Case("the host goes", "vanishes",
             [of("node", "node_cpu_seconds_total", climb(0.1, "10m"), gone("10m"), cpu="0",
                 mode="idle")], {"9m45s": firing(instance="a"), "15m": []}),
        Case("only the host that is busy", "replicas", [idle(0.1, "0"), idle(0.9, "0", "b")],
             {"16m": firing(instance="a")}),
        Case("what is not idle does not count", "below",
             [idle(0.25, "0"),
              of("node", "node_cpu_seconds_total", climb(0.01, "30m"), cpu="0", mode="steal")],
             {"16m": []}),
    ],
    "HighDiskUsage": [
        Case("91 % used, listed twice", "fires boundary resolves",
             [disk("avail", hold(10, "1m"), hold(9, "7m"), hold(10, "1m")),
              disk("size", hold(100, "9m")),
              disk("avail", hold(50, "9m"), device="sdb"), disk("size", hold(100, "9m"), device="sdb")],
             {"45s": [], "1m": pending(instance="a", mountpoint="/"),
              "5m45s": pending(instance="a", mountpoint="/"),
              "6m": firing(instance="a", mountpoint="/"), "8m": []},
             ("6m", "Disk usage of / on a is 91.0%")),
        Case("90 % used", "below", [disk("avail", hold(10, "9m")), disk("size", hold(100, "9m"))],
             {"8m": []}),
        Case("the host goes", "vanishes",
             [disk("avail", hold(1, "6m"), gone("3m")), disk("size", hold(100, "6m"), gone("3m"))],
             {"5m45s": firing(instance="a", mountpoint="/"), "6m": []}),
        Case("only the host that is full", "replicas",
             [disk("avail", hold(1, "9m")), disk("size", hold(100, "9m")),
              disk("avail", hold(1, "9m"), instance="b"),
              disk("size", hold(10, "9m"), instance="b")],
             {"8m": firing(instance="a", mountpoint="/")}),
    ],
}  # fmt: skip
