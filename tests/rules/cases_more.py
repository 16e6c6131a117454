"""What the alerts beyond the given eleven do in the course of events."""

from __future__ import annotations

from tests.rules.cases_seed import ABOVE, BELOW, HALF, burst
from tests.rules.timeline import (
    Case,
    Piece,
    Series,
    add,
    app,
    climb,
    clock,
    drift,
    firing,
    gone,
    hold,
    moment,
    of,
    pending,
)

JOB = "websocket-app"
RESTARTS = "app_worker_restarts_total"
LAG = "app_event_loop_lag_seconds_bucket"
CPU = "app_worker_cpu_seconds_total"
MEMORY = "app_memory_working_set_bytes"
HEARD = "app_broker_last_message_timestamp_seconds"


def lag(tenth: float, quarter: float, *, instance: str = "a") -> list[Series]:
    """Of 100 timers a second so many are up to 0.1 and 0.25 s late, all up to 0.5 s."""
    rates = {"0.05": 0.0, "0.1": tenth, "0.25": quarter, "0.5": 100.0, "+Inf": 100.0}
    return [
        app(LAG, hold(0, "5m"), climb(rate, "10m"), add(0, "10m"), instance=instance, le=le)
        for le, rate in rates.items()
    ]


def limit(*, instance: str = "a") -> Series:
    return app("app_memory_limit_bytes", hold(1000, "150m"), instance=instance)


def loads(*pieces: Piece, instance: str = "a", worker: str = "w0a") -> list[Series]:
    """The connections of a worker, and as many of another job, which do not count."""
    labels = {"instance": instance, "worker": worker}
    return [
        app("app_worker_connections", *pieces, **labels),
        of("staging", "app_worker_connections", *pieces, **labels),
    ]


WORKERS: dict[str, list[Case]] = {
    "WorkerCrashLooping": [
        Case("a crash, a hang and a failed boot within 15 minutes",
             "fires boundary resolves",
             [app(RESTARTS, hold(0, "1m"), add(1, "30m"), reason="crash"),
              app(RESTARTS, hold(0, "8m"), add(1, "30m"), reason="hung"),
              app(RESTARTS, hold(0, "14m"), add(1, "30m"), reason="boot")],
             {"13m45s": [], "14m": firing(instance="a"), "15m45s": firing(instance="a"),
              "16m": []},
             ("14m", ("Workers of a were started again 3 times in 15 minutes after a crash, a hang"
              " or a failed boot"))),
        Case("two crashes, and a roll of all workers", "below",
             [app(RESTARTS, hold(0, "1m"), add(2, "30m"), reason="crash"),
              app(RESTARTS, hold(0, "1m"), add(8, "30m"), reason="roll")],
             {"2m": [], "10m": []}),
        Case("three crashes in 20 minutes", "below",
             [app(RESTARTS, hold(0, "1m"), add(1, "10m"), add(1, "10m"), add(1, "20m"),
                  reason="crash")],
             {"11m": [], "21m": [], "25m": []}),
        Case("the replica goes", "vanishes",
             [app(RESTARTS, hold(0, "1m"), add(5, "1m"), gone("20m"), reason="crash")],
             {"1m45s": firing(instance="a"), "18m": []}),
        Case("two crashes of each of two replicas are no loop", "replicas",
             [app(RESTARTS, hold(0, "1m"), add(2, "9m"), reason="crash", instance=i)
              for i in "ab"], {"5m": []}),
    ],
    "EventLoopLag": [
        Case("0.26 s", "fires boundary resolves", lag(98, 98.95),
             {"4m45s": [], "5m": pending(job=JOB, instance="a"),
              "9m45s": pending(job=JOB, instance="a"), "10m": firing(job=JOB, instance="a"),
              "19m30s": firing(job=JOB, instance="a"), "19m45s": []},
             ("10m", "Timers of a run 261.9ms late (99th percentile)")),
        Case("0.24 s", "below", lag(98, 99.05), {"10m": [], "15m": []}),
        Case("the replica goes", "vanishes",
             [app(LAG, climb(rate, "11m"), gone("10m"), le=le)
              for le, rate in (("0.25", 0), ("0.5", 10), ("+Inf", 10))],
             {"10m": firing(job=JOB, instance="a"), "18m": []}),
        Case("only the replica that lags", "replicas",
             [*lag(0, 0), *lag(100, 100, instance="b")],
             {"12m": firing(job=JOB, instance="a")}),
    ],
    "WorkerCPUSaturated": [
        Case("92 % of a core by one of two workers", "fires boundary resolves",
             [app(CPU, hold(0, "5m"), climb(0.92, "10m"), add(0, "5m"), worker="w0a"),
              app(CPU, climb(0.1, "20m"), worker="w1a")],
             {"6m30s": [], "6m45s": pending(job=JOB, instance="a"),
              "11m30s": pending(job=JOB, instance="a"), "11m45s": firing(job=JOB, instance="a"),
              "14m45s": firing(job=JOB, instance="a"), "15m": []},
             ("11m45s", ("The busiest worker of a uses 92% of a core, although the host may look"
              " idle"))),
        Case("88 %", "below", [app(CPU, climb(0.88, "20m"), worker="w0a")], {"19m": []}),
        Case("two workers with half a core each", "below",
             [app(CPU, climb(0.5, "20m"), worker=w) for w in ("w0a", "w1a")], {"19m": []}),
        Case("the replica goes", "vanishes",
             [app(CPU, climb(1, "10m"), gone("10m"), worker="w0a")],
             {"9m45s": firing(job=JOB, instance="a"), "12m": []}),
        Case("only the replica that is busy", "replicas",
             [app(CPU, climb(1, "10m"), worker="w0a"),
              app(CPU, climb(0.5, "10m"), worker="w0a", instance="b")],
             {"9m45s": firing(job=JOB, instance="a")}),
    ],
    "SlowConsumers": [
        Case("10.4 a minute", "fires boundary resolves",
             [app("app_slow_consumers_total", *burst(ABOVE))],
             {"9m30s": [], "9m45s": pending(), "14m30s": pending(), "14m45s": firing(), "15m": []},
             ("14m45s", "10.4 connections per minute are closed because they do not read")),
        Case("9.6 a minute", "below", [app("app_slow_consumers_total", climb(BELOW, "20m"))],
             {"18m": []}),
        Case("the replica goes", "vanishes",
             [app("app_slow_consumers_total", climb(1, "10m"), gone("10m"))],
             {"9m45s": firing(), "15m": []}),
        Case("two replicas, 6 a minute each", "replicas",
             [app("app_slow_consumers_total", climb(HALF, "20m"), instance=i) for i in "ab"],
             {"18m": firing()}),
    ],
    "MetricsFilesCorrupt": [
        Case("one file", "fires boundary resolves",
             [app("app_metrics_collect_errors_total", hold(0, "5m"), add(1, "9m"))],
             {"4m45s": [], "5m": firing(instance="a"), "9m45s": firing(instance="a"), "10m": []},
             ("9m45s", ("a put 1 metric files aside in 5 minutes: counters of that worker are"
              " lost"))),
        Case("none", "below", [app("app_metrics_collect_errors_total", hold(7, "9m"))], {"8m": []}),
        Case("the replica goes", "vanishes",
             [app("app_metrics_collect_errors_total", hold(0, "2m"), add(1, "1m"), gone("9m"))],
             {"2m45s": firing(instance="a"), "8m": []}),
        Case("only the replica that put one aside", "replicas",
             [app("app_metrics_collect_errors_total", hold(0, "5m"), add(2, "9m")),
              app("app_metrics_collect_errors_total", hold(1, "14m"), instance="b")],
             {"6m": firing(instance="a")}),
    ],
    "AppScrapeSlow": [
        Case("1.05 s", "fires boundary resolves",
             [app("scrape_duration_seconds", hold(1, "1m"), hold(1.05, "6m"), hold(1, "1m"))],
             {"45s": [], "1m": pending(instance="a"), "5m45s": pending(instance="a"),
              "6m": firing(instance="a"), "7m": []},
             ("6m", "A scrape of a takes 1.05s")),
        Case("1 s", "below", [app("scrape_duration_seconds", hold(1, "9m"))], {"8m": []}),
        Case("the target goes", "vanishes",
             [app("scrape_duration_seconds", hold(3, "6m"), gone("2m"))],
             {"5m45s": firing(instance="a"), "6m": []}),
        Case("only the replica that is slow", "replicas",
             [app("scrape_duration_seconds", hold(3, "6m")),
              app("scrape_duration_seconds", hold(0.1, "6m"), instance="b")],
             {"5m45s": firing(instance="a")}),
    ],
    "BrokerDisconnected": [
        Case("30 s without the broker", "fires boundary resolves",
             [app("app_broker_up", hold(1, "1m"), hold(0, "2m"), hold(1, "1m"))],
             {"45s": [], "1m": pending(instance="a"), "1m15s": pending(instance="a"),
              "1m30s": firing(instance="a"), "3m": []},
             ("1m30s", ("a has a worker without its broker (app_broker_up is 0): it delivers"
              " nothing between workers"))),
        Case("connected", "below", [app("app_broker_up", hold(1, "3m"))], {"2m": []}),
        Case("the replica goes, which is another alert's", "vanishes",
             [app("app_broker_up", hold(0, "1m"), gone("1m"))],
             {"45s": firing(instance="a"), "1m": []}),
        Case("only the replica that lost it", "replicas",
             [app("app_broker_up", hold(0, "1m")), app("app_broker_up", hold(1, "1m"), instance="b")],
             {"45s": firing(instance="a")}),
    ],
    "BrokerDeaf": [
        Case("63 s since the last canary", "fires boundary resolves",
             [app(HEARD, clock("1s", "1m"), clock("63s", "2m"), clock("1s", "1m"))],
             {"45s": [], "1m": pending(job=JOB, instance="a"),
              "1m15s": pending(job=JOB, instance="a"), "1m30s": firing(job=JOB, instance="a"),
              "2m45s": firing(job=JOB, instance="a"), "3m": []},
             ("1m30s", ("A worker of a has not heard its own canary for 1m 3s: it misses"
              " publications although it seems connected"))),
        Case("57 s since the last canary", "below", [app(HEARD, clock("57s", "3m"))], {"2m": []}),
        Case("a time stamp that stands still", "boundary", [app(HEARD, moment("0s", "3m"))],
             {"1m": [], "1m15s": pending(job=JOB, instance="a"),
              "1m30s": pending(job=JOB, instance="a"), "1m45s": firing(job=JOB, instance="a")}),
        Case("scrapes are missing, canaries are not", "vanishes",
             [app(HEARD, clock("1s", "1m"), gone("3m"))], {"2m": [], "3m45s": []}),
        Case("only the replica that is deaf", "replicas",
             [app(HEARD, clock("70s", "3m")), app(HEARD, clock("2s", "3m"), instance="b")],
             {"2m": firing(job=JOB, instance="a")}),
    ],
}  # fmt: skip

CAPACITY: dict[str, list[Case]] = {
    "ConnectionCapacity": [
        Case("81 % of what fits", "fires boundary resolves",
             [app("app_active_connections", hold(800, "1m"), hold(810, "7m"), hold(800, "1m")),
              app("app_connection_capacity", hold(1000, "9m"))],
             {"45s": [], "1m": pending(job=JOB), "5m45s": pending(job=JOB),
              "6m": firing(job=JOB), "8m": []},
             ("6m", "81% of the connections that fit are in use")),
        Case("80 %", "below",
             [app("app_active_connections", hold(800, "9m")),
              app("app_connection_capacity", hold(1000, "9m"))], {"8m": []}),
        Case("everything goes", "vanishes",
             [app("app_active_connections", hold(900, "6m"), gone("2m")),
              app("app_connection_capacity", hold(1000, "6m"), gone("2m"))],
             {"5m45s": firing(job=JOB), "6m": []}),
        Case("two replicas, both at 85 %", "replicas",
             [app("app_active_connections", hold(850, "9m"), instance=i) for i in "ab"]
             + [app("app_connection_capacity", hold(1000, "9m"), instance=i) for i in "ab"],
             {"8m": firing(job=JOB)}),
        Case("a full replica beside an empty one; then the empty one is lost", "replicas",
             [app("app_active_connections", hold(900, "20m")),
              app("app_connection_capacity", hold(1000, "20m")),
              app("app_active_connections", hold(0, "10m"), gone("10m"), instance="b"),
              app("app_connection_capacity", hold(1000, "10m"), gone("10m"), instance="b")],
             {"9m45s": [], "10m": pending(job=JOB), "15m": firing(job=JOB)}),
    ],
    "FileDescriptorsExhausting": [
        Case("81 % in one of two workers", "fires boundary resolves",
             [app("app_worker_open_fds", hold(800, "1m"), hold(810, "7m"), hold(800, "1m"),
                  worker="w0a"),
              app("app_worker_max_fds", hold(1000, "9m"), worker="w0a"),
              app("app_worker_open_fds", hold(10, "9m"), worker="w1a"),
              app("app_worker_max_fds", hold(1000, "9m"), worker="w1a")],
             {"45s": [], "1m": pending(instance="a"), "5m45s": pending(instance="a"),
              "6m": firing(instance="a"), "8m": []},
             ("6m", "A worker of a uses 81% of its file descriptors")),
        Case("80 %", "below",
             [app("app_worker_open_fds", hold(800, "9m"), worker="w0a"),
              app("app_worker_max_fds", hold(1000, "9m"), worker="w0a")], {"8m": []}),
        Case("the worker goes", "vanishes",
             [app("app_worker_open_fds", hold(900, "6m"), gone("2m"), worker="w0a"),
              app("app_worker_max_fds", hold(1000, "6m"), gone("2m"), worker="w0a")],
             {"5m45s": firing(instance="a"), "6m": []}),
        Case("only the replica that runs out", "replicas",
             [app("app_worker_open_fds", hold(900, "6m"), worker="w0a"),
              app("app_worker_max_fds", hold(1000, "6m"), worker="w0a"),
              app("app_worker_open_fds", hold(900, "6m"), worker="w0a", instance="b"),
              app("app_worker_max_fds", hold(2000, "6m"), worker="w0a", instance="b")],
             {"5m45s": firing(instance="a")}),
    ],
    "MemoryWillHitLimit": [
        Case("7 % per minute, past 60 % after 14 and a half", "fires boundary resolves",
             [app(MEMORY, hold(500, "15s"), drift(7, "30m"), drift(0, "60m")), limit()],
             {"14m15s": [], "14m30s": pending(job=JOB, instance="a"),
              "29m15s": pending(job=JOB, instance="a"), "29m30s": firing(job=JOB, instance="a"),
              "42m30s": firing(job=JOB, instance="a"), "42m45s": []},
             ("29m30s", "At this pace a is at 112.7% of its memory limit in an hour")),
        Case("a leak begins after an hour at 70 %", "boundary",
             [app(MEMORY, hold(700, "1h"), drift(6, "40m")), limit()],
             {"1h16m45s": [], "1h17m": pending(job=JOB, instance="a"),
              "1h32m": firing(job=JOB, instance="a")}),
        Case("0.9 of the limit in an hour", "below",
             [app(MEMORY, hold(700, "15s"), drift(3.3, "30m")), limit()], {"29m": []}),
        Case("60 % and growing fast", "below", [app(MEMORY, hold(300, "15s"), drift(10, "30m")),
             limit()], {"30m": []}),
        Case("just under and just over the limit in an hour", "boundary",
             [app(MEMORY, hold(700, "15s"), drift(4.9, "40m")), limit()],
             {"1m": [], "1m15s": pending(job=JOB, instance="a"),
              "16m": pending(job=JOB, instance="a"), "16m15s": firing(job=JOB, instance="a")}),
        Case("the replica goes", "vanishes",
             [app(MEMORY, hold(700, "15s"), drift(7, "20m"), gone("5m")), limit()],
             {"19m": firing(job=JOB, instance="a"), "20m15s": []}),
        Case("only the replica that leaks", "replicas",
             [app(MEMORY, hold(700, "15s"), drift(7, "20m")), limit(),
              app(MEMORY, hold(900, "20m"), instance="b"), limit(instance="b")],
             {"19m": firing(job=JOB, instance="a")}),
    ],
    "ReplicaLost": [
        Case("one of two leaves discovery", "fires boundary resolves replicas",
             [app("up", hold(1, "90m")), app("up", hold(1, "10m"), gone("80m"), instance="b")],
             {"9m45s": [], "10m": pending(), "11m45s": pending(), "12m": firing(),
              "1h9m45s": firing(), "1h10m": []},
             ("12m", "1 replicas that answered in the last hour are gone")),
        Case("one of two comes back", "resolves",
             [app("up", hold(1, "30m")),
              app("up", hold(1, "10m"), hold(0, "5m"), hold(1, "15m"), instance="b")],
             {"14m45s": firing(), "15m": []}),
        Case("all that ever were are there", "below",
             [app("up", hold(1, "30m")), app("up", hold(1, "30m"), instance="b")], {"29m": []}),
        Case("one more than before", "below",
             [app("up", hold(1, "30m")), app("up", hold(0, "10m"), hold(1, "20m"), instance="b")],
             {"9m": [], "29m": []}),
        Case("all are gone", "vanishes",
             [app("up", hold(1, "10m"), gone("20m")),
              app("up", hold(1, "10m"), gone("20m"), instance="b")],
             {"10m": pending(), "12m": firing()},
             ("12m", "2 replicas that answered in the last hour are gone")),
    ],
    "ConnectionsUnbalanced": [
        Case("52 % above and below a mean of 100, and one between", "fires boundary resolves",
             [*loads(hold(100, "1m"), hold(152, "12m"), hold(148, "2m")),
              *loads(hold(100, "13m"), hold(100, "2m"), worker="w1a"),
              *loads(hold(100, "1m"), hold(48, "12m"), hold(52, "2m"), worker="w2a")],
             {"45s": [], "1m": pending(job=JOB), "10m45s": pending(job=JOB),
              "11m": firing(job=JOB), "12m45s": firing(job=JOB), "13m": []},
             ("11m", ("The connections of a worker differ from the mean of all by 52% of it, for ten"
              " minutes: capacity is not used, or one worker carries the load of others"))),
        Case("48 %", "below",
             [*loads(hold(148, "13m")), *loads(hold(52, "13m"), worker="w1a")], {"12m": []}),
        Case("exactly half", "below",
             [*loads(hold(150, "13m")), *loads(hold(50, "13m"), worker="w1a")], {"12m": []}),
        Case("all of 52 a worker, and of exactly 50", "boundary",
             [*loads(hold(104, "13m"), hold(100, "5m")), *loads(hold(0, "18m"), worker="w1a")],
             {"12m": firing(job=JOB), "14m": []}),
        Case("no connection at all", "below",
             [*loads(hold(0, "13m")), *loads(hold(0, "13m"), worker="w1a")], {"12m": []}),
        Case("the full worker goes", "vanishes",
             [*loads(hold(300, "12m"), gone("3m")), *loads(hold(0, "15m"), worker="w1a")],
             {"11m45s": firing(job=JOB), "12m15s": []}),
        Case("one of ten replicas is empty, and then none", "replicas",
             [*loads(hold(0, "12m"), hold(100, "3m")),
              *(one for i in "bcdefghij" for one in loads(hold(100, "15m"), instance=i))],
             {"11m": firing(job=JOB), "12m15s": []}),
    ],
}  # fmt: skip
