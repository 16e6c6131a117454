"""The cases of the alerts about quality, and of those about the monitoring itself."""

from __future__ import annotations

from tests.rules.cases_seed import ABOVE, BELOW, HALF, burst
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
    of,
    pending,
)

JOB = "websocket-app"
PROMETHEUS = {"job": "prometheus", "instance": "a"}
ERRORS = "app_client_errors_total"
COMMANDS = "app_commands_total"
LOG = "app_log_events_total"
SENT = "alertmanager_notifications_total"
FAILED = "alertmanager_notifications_failed_total"
KNOWN = "prometheus_notifications_alertmanagers_discovered"


def faults(ratio: float, *, commands: float = 1.9, duration: str = "3h") -> list[Series]:
    """Commands all the time; after 7 hours, for a while, so many of them fail."""
    return [
        app(COMMANDS, climb(commands, "14h"), method="publish"),
        app("app_errors_total", hold(0, "7h"), climb(ratio * commands, duration), add(0, "2h"),
            type="broker"),
    ]  # fmt: skip


def on_each_of_two(ratio: float) -> list[Series]:
    """Half of the commands and half of the faults on each of two replicas."""
    return [
        Series(one.name, {**one.labels, "instance": instance}, one.pieces)
        for instance in "ab"
        for one in faults(ratio, commands=0.95, duration="7h")
    ]


def traffic(*commands: Piece, faults: tuple[Piece, ...]) -> list[Series]:
    return [
        app(COMMANDS, *commands, method="publish"),
        app("app_errors_total", *faults, type="broker"),
    ]


def on_two(name: str, per_second: float, **labels: str) -> list[Series]:
    return [app(name, climb(per_second, "20m"), instance=i, **labels) for i in "ab"]


def failing(rule_group: str, *pieces: Piece) -> Series:
    name = "prometheus_rule_evaluation_failures_total"
    return of("prometheus", name, *pieces, rule_group=rule_group)


QUALITY: dict[str, list[Case]] = {
    "HighClientErrorRate": [
        Case("10.4 % of commands, 1.04 a second", "fires boundary resolves",
             [app(ERRORS, hold(0, "5m"), climb(1.04, "15m"), add(0, "10m"), code="109"),
              app(COMMANDS, climb(10, "40m"), method="connect")],
             {"9m30s": [], "9m45s": pending(), "19m30s": pending(), "19m45s": firing(), "20m": []},
             ("19m45s", "10.4% of what clients ask is refused as their own mistake")),
        Case("9.6 %", "below",
             [app(ERRORS, climb(2, "20m"), code="109"),
              app(COMMANDS, climb(20.8, "20m"), method="connect")], {"18m": []}),
        Case("one broken client on an idle cluster", "below",
             [app(ERRORS, climb(0.96, "20m"), code="109"),
              app(COMMANDS, climb(0.96, "20m"), method="connect")], {"18m": []}),
        Case("exactly one mistake a second", "below",
             [app(ERRORS, climb(1, "20m"), code="109"),
              app(COMMANDS, climb(2, "20m"), method="connect")], {"18m": []}),
        Case("frames that are no commands at all", "fires",
             [app(ERRORS, climb(3, "20m"), code="3501"),
              app(COMMANDS, hold(0, "20m"), method="connect")], {"18m": firing()}),
        Case("everything goes", "vanishes",
             [app(ERRORS, climb(5, "16m"), gone("9m"), code="109"),
              app(COMMANDS, climb(10, "16m"), gone("9m"), method="connect")],
             {"15m45s": firing(), "22m": []}),
        Case("two replicas, 0.6 a second each", "replicas",
             on_two(ERRORS, 0.6, code="109") + on_two(COMMANDS, 5.5, method="connect"),
             {"18m": firing()}),
        Case("two replicas, 7.5 % of all commands", "replicas",
             on_two(ERRORS, 0.6, code="109") + on_two(COMMANDS, 8, method="connect"),
             {"18m": []}),
        Case("2.08 a second, whose share grows for 5 minutes", "boundary",
             [app(ERRORS, hold(0, "5m"), climb(2.08, "15m"), code="109"),
              app(COMMANDS, climb(20, "40m"), method="connect")],
             {"9m30s": [], "9m45s": pending()}),
        Case("half of few commands, 1.04 a second after 5 minutes", "boundary",
             [app(ERRORS, hold(0, "5m"), climb(1.04, "15m"), code="109"),
              app(COMMANDS, climb(2, "40m"), method="connect")],
             {"9m30s": [], "9m45s": pending()}),
        Case("as many mistakes, but ever fewer commands", "boundary",
             [app(ERRORS, climb(2, "40m"), code="109"),
              app(COMMANDS, climb(40, "10m"), climb(10, "30m"), method="connect")],
             {"13m": [], "13m15s": pending()}),
    ],
    "HighLogErrorRate": [
        Case("10.4 a minute, errors and worse", "fires boundary resolves",
             [app(LOG, *burst(ABOVE / 2), level="error"),
              app(LOG, *burst(ABOVE / 2), level="critical")],
             {"9m30s": [], "9m45s": pending(), "14m30s": pending(), "14m45s": firing(), "15m": []},
             ("14m45s", "10.4 errors are logged per minute")),
        Case("9.6 a minute, and many warnings", "below",
             [app(LOG, climb(BELOW, "20m"), level="error"),
              app(LOG, climb(9, "20m"), level="warning")], {"18m": []}),
        Case("the replica goes", "vanishes",
             [app(LOG, climb(1, "10m"), gone("9m"), level="error")],
             {"9m45s": firing(), "16m": []}),
        Case("two replicas, 6 a minute each", "replicas",
             [app(LOG, climb(HALF, "20m"), level="error", instance=i) for i in "ab"],
             {"18m": firing()}),
    ],
    "ErrorBudgetFastBurn": [
        Case("1.5 % fail: an hour's window is over 1.44 % after 57m", "fires boundary resolves",
             faults(0.015, duration="1h"),
             {"7h56m": [], "7h57m": firing(job=JOB), "8h": []},
             ("7h57m", "1.45% of commands fail, and 0.1% may")),
        Case("2.28 % fail, and end: the short window ends it, too", "resolves",
             faults(0.0228, duration="1h15m"),
             {"8h10m": firing(job=JOB), "8h15m": firing(job=JOB), "8h16m": []}),
        Case("0.65 % fail: six hours are over 0.6 % after 5h32m", "boundary resolves",
             faults(0.0065, duration="6h"),
             {"12h31m": [], "12h32m": firing(job=JOB), "13h1m": firing(job=JOB),
              "13h2m": []}),
        Case("0.58 % fail", "below", faults(0.0058, duration="7h"), {"13h": [], "14h": []}),
        Case("half of hardly any commands fail", "below",
             faults(0.5, commands=0.96), {"8h": [], "9h55m": []}),
        Case("half of very few commands fail", "boundary",
             faults(0.5, commands=1.04), {"7h10m": firing(job=JOB), "9h": firing(job=JOB)}),
        Case("the service goes", "vanishes",
             [app(COMMANDS, climb(10, "2h"), gone("1h"), method="publish"),
              app("app_errors_total", climb(1, "2h"), gone("1h"), type="broker")],
             {"1h59m": firing(job=JOB), "2h10m": firing(job=JOB), "2h59m": []}),
        Case("hardly any commands are left: the short window of the fast pace is over", "boundary",
             traffic(climb(1.9, "8h"), climb(0.5, "1h"),
                     faults=(hold(0, "7h53m"), climb(0.2, "1h7m"))),
             {"8h2m": firing(job=JOB), "8h3m": []}),
        Case("hardly any commands are left: the short window of the slow pace is over", "boundary",
             traffic(climb(1.9, "8h"), climb(0.5, "1h"),
                     faults=(hold(0, "1h"), climb(0.01235, "8h"))),
             {"8h18m": firing(job=JOB), "8h19m": []}),
        Case("commands come: the long window of the fast pace has few for a while", "boundary",
             traffic(climb(0.5, "7h"), climb(5, "1h"),
                     faults=(hold(0, "7h"), climb(0.5, "1h"))),
             {"7h5m": [], "7h6m": firing(job=JOB)}),
        Case("commands come: the long window of the slow pace has few for longer", "boundary",
             traffic(climb(0.5, "7h"), climb(5, "1h"),
                     faults=(hold(0, "7h"), climb(0.07, "1h"))),
             {"7h38m": [], "7h40m": firing(job=JOB)}),
        Case("two replicas, at the fast pace together", "replicas", on_each_of_two(0.016),
             {"8h10m": firing(job=JOB)}),
        Case("two replicas, at the slow pace together", "replicas", on_each_of_two(0.0065),
             {"12h40m": firing(job=JOB)}),
        Case("one of ten replicas has the faults of all", "replicas",
             [app(COMMANDS, climb(10, "2h"), method="publish", instance=i) for i in "abcdefghij"]
             + [app("app_errors_total", climb(0.3, "2h"), type="broker")],
             {"1h59m": []}),
    ],
}  # fmt: skip

MONITORING: dict[str, list[Case]] = {
    "Watchdog": [
        Case("always, whatever there is", "fires boundary vanishes replicas", [],
             {"0s": firing(), "1h": firing()},
             ("1h", ("Value 1: alerts travel. When this stops arriving at the dead man's switch,"
              " they do not"))),
    ],
    "RuleEvaluationFailures": [
        Case("one failed evaluation", "fires boundary resolves replicas",
             [failing("g1", hold(0, "5m"), add(1, "9m")), failing("g2", hold(3, "14m"))],
             {"4m45s": [], "5m": firing(rule_group="g1"), "9m45s": firing(rule_group="g1"),
              "10m": []},
             ("9m45s", "1 evaluations of g1 failed in 5 minutes: its alerts are blind")),
        Case("none since long", "below", [failing("g1", hold(2, "9m"))], {"8m": []}),
        Case("Prometheus forgets the group", "vanishes",
             [failing("g1", hold(0, "1m"), add(1, "1m"), gone("9m"))],
             {"1m45s": firing(rule_group="g1"), "8m": []}),
    ],
    "NotificationsFailing": [
        Case("1.04 % to Slack", "fires boundary resolves",
             [of("alertmanager", FAILED, hold(0, "15m"), climb(0.0104, "30m"), add(0, "20m"),
                 integration="slack"),
              of("alertmanager", SENT, climb(1, "65m"), integration="slack")],
             {"29m": [], "29m15s": pending(integration="slack"),
              "34m": pending(integration="slack"), "34m15s": firing(integration="slack"),
              "45m15s": firing(integration="slack"), "45m30s": []},
             ("34m15s", "1.04% of the notifications to slack fail")),
        Case("0.96 %", "below",
             [of("alertmanager", FAILED, climb(0.0096, "40m"), integration="slack"),
              of("alertmanager", SENT, climb(1, "40m"), integration="slack")], {"39m": []}),
        Case("nothing to send", "below",
             [of("alertmanager", FAILED, hold(0, "40m"), integration="slack"),
              of("alertmanager", SENT, hold(0, "40m"), integration="slack")], {"39m": []}),
        Case("Alertmanager goes", "vanishes",
             [of("alertmanager", FAILED, climb(1, "20m"), gone("20m"), integration="slack"),
              of("alertmanager", SENT, climb(1, "20m"), gone("20m"), integration="slack")],
             {"19m": firing(integration="slack"), "36m": []}),
        Case("two Alertmanagers; only PagerDuty fails", "replicas",
             [of("alertmanager", SENT, climb(1, "40m"), integration=n, instance=i)
              for n in ("slack", "pagerduty") for i in "ab"]
             + [of("alertmanager", FAILED, climb(0.0104, "40m"), integration="pagerduty", instance=i)
                for i in "ab"]
             + [of("alertmanager", FAILED, climb(0.0192, "40m"), integration="slack")],
             {"39m": firing(integration="pagerduty")}),
        Case("as many failures, but ever fewer notifications", "boundary",
             [of("alertmanager", FAILED, climb(0.0204, "40m"), integration="slack"),
              of("alertmanager", SENT, climb(4, "20m"), climb(1, "20m"), integration="slack")],
             {"29m30s": [], "29m45s": pending(integration="slack")}),
    ],
    "AlertmanagerDown": [
        Case("the only one does not answer", "fires boundary resolves",
             [of("alertmanager", "up", hold(1, "1m"), hold(0, "4m"), hold(1, "1m"))],
             {"45s": [], "1m": pending(), "2m45s": pending(), "3m": firing(), "5m": []},
             ("3m", "0 Alertmanagers answer: nobody is notified of anything")),
        Case("one that answers is enough", "below replicas",
             [of("alertmanager", "up", hold(1, "5m")),
              of("alertmanager", "up", hold(0, "5m"), instance="b")], {"4m": []}),
        Case("discovery does not know it any more", "vanishes",
             [of("alertmanager", "up", hold(0, "1m"), gone("5m"))],
             {"1m45s": pending(), "2m": firing()}),
    ],
    "NotConnectedToAlertmanager": [
        Case("none for 5 minutes", "fires boundary resolves",
             [of("prometheus", KNOWN, hold(1, "5m"), hold(0, "9m"), hold(1, "1m"))],
             {"9m45s": [], "10m": pending(**PROMETHEUS), "11m45s": pending(**PROMETHEUS),
              "12m": firing(**PROMETHEUS), "14m": []},
             ("12m", ("Prometheus has 0 Alertmanagers to send to; only the dead man's switch can"
              " tell"))),
        Case("one", "below", [of("prometheus", KNOWN, hold(1, "15m"))], {"14m": []}),
        Case("Prometheus no longer scrapes itself", "vanishes",
             [of("prometheus", KNOWN, hold(0, "8m"), gone("9m"))], {"7m": firing(**PROMETHEUS), "14m": []}),
        Case("only the Prometheus that has none", "replicas",
             [of("prometheus", KNOWN, hold(0, "8m")),
              of("prometheus", KNOWN, hold(2, "8m"), instance="b")],
             {"7m": firing(**PROMETHEUS)}),
    ],
    "NodeExporterDown": [
        Case("it does not answer", "fires boundary resolves",
             [of("node", "up", hold(1, "1m"), hold(0, "4m"), hold(1, "1m")),
              of("node", "up", hold(1, "6m"), instance="b")],
             {"45s": [], "1m": pending(job="node", instance="a"),
              "2m45s": pending(job="node", instance="a"),
              "3m": firing(job="node", instance="a"), "5m": []},
             ("3m", "HighCPUUsage and HighDiskUsage are blind: a does not answer")),
        Case("it answers", "below", [of("node", "up", hold(1, "5m"))], {"4m": []}),
        Case("discovery does not know it any more", "vanishes",
             [of("node", "up", hold(1, "1m"), gone("5m"))],
             {"1m": pending(), "2m45s": pending(), "3m": firing()},
             ("3m", "HighCPUUsage and HighDiskUsage are blind: 0 node_exporters answer")),
        Case("the only two are down", "replicas",
             [of("node", "up", hold(0, "5m")), of("node", "up", hold(0, "5m"), instance="b")],
             {"4m": [*firing(job="node", instance="a"), *firing(job="node", instance="b"),
                     *firing()]}),
    ],
}  # fmt: skip
