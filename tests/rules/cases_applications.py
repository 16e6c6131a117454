"""The cases of the alerts about what users and backends are refused, and about slow applications."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.rules.cases_seed import ABOVE, BELOW, HALF, burst
from tests.rules.timeline import Case, Piece, Series, add, app, climb, firing, gone, hold, pending

JOB = "websocket-app"
REFUSED = "app_permission_refusals_total"
COMMANDS = "app_commands_total"
API_ERRORS = "app_api_errors_total"
API_REQUESTS = "app_api_requests_total"
REFRESHES = "app_refresh_failures_total"
SLOW = "app_slow_handlers_total"
HANDLED = "app_handler_duration_seconds_count"

Made = Callable[..., list[Series]]


def shares(failed: Made, whole: Made, *, is_part: bool = False, **labels: str) -> list[Case]:
    """Cases of an alert on a share above 5 % of more than 10 a minute.

    Args:
        failed: the series of what fails, made of pieces.
        whole: the series of everything.
        is_part: whether the series of what fails are counted in the whole, beside those of `whole`.
        labels: of the alert.
    """

    def all_of(per_second: float, failing: float, duration: str, **more: str) -> list[Series]:
        return whole(climb(per_second - failing * is_part, duration), **more)

    def on_two(failing: float, share: float) -> list[Series]:
        return [
            one
            for instance in "ab"
            for one in (
                *failed(climb(failing, "20m"), instance=instance),
                *all_of(failing / share, failing, "20m", instance=instance),
            )
        ]

    return [
        Case("5.2 %, 10.4 a minute", "fires boundary resolves",
             failed(*burst(ABOVE)) + all_of(ABOVE / 0.052, ABOVE, "40m"),
             {"9m30s": [], "9m45s": pending(**labels), "14m30s": pending(**labels),
              "14m45s": firing(**labels), "15m15s": []}),
        Case("5.2 % of many, which grows for 5 minutes", "boundary",
             failed(*burst(ABOVE * 3)) + all_of(ABOVE * 3 / 0.052, ABOVE * 3, "40m"),
             {"9m30s": [], "9m45s": pending(**labels)}),
        Case("half of few, 10.4 a minute after 5 minutes", "boundary",
             failed(*burst(ABOVE)) + all_of(ABOVE * 2, ABOVE, "40m"),
             {"9m30s": [], "9m45s": pending(**labels)}),
        Case("as many failures of ever fewer", "boundary",
             failed(climb(1, "40m")) + whole(climb(40 - is_part, "10m"), climb(10 - is_part, "30m")),
             {"13m": [], "13m15s": pending(**labels)}),
        Case("4.8 % of many", "below",
             failed(climb(4.8, "20m")) + all_of(100, 4.8, "20m"), {"18m": []}),
        Case("half of few, 9.6 a minute", "below",
             failed(climb(BELOW, "20m")) + all_of(BELOW * 2, BELOW, "20m"), {"18m": []}),
        Case("everything goes", "vanishes",
             failed(climb(1, "10m"), gone("9m")) + whole(climb(9, "10m"), gone("9m")),
             {"9m45s": firing(**labels), "16m": []}),
        Case("two replicas, 6 a minute each", "replicas", on_two(HALF, 0.5), {"18m": firing(**labels)}),
        Case("two replicas, 5.2 % of all", "replicas", on_two(1, 0.052), {"18m": firing(**labels)}),
        Case("two replicas, 3.9 % of all", "replicas", on_two(1, 0.039), {"18m": []}),
    ]  # fmt: skip


def series_of(name: str, **labels: str) -> Made:
    def made(*pieces: Piece, instance: str = "a") -> list[Series]:
        return [app(name, *pieces, instance=instance, **labels)]

    return made


def beside(made: Made, *others: Series) -> Made:
    """The series, and others beside them on the same replica."""

    def both(*pieces: Piece, instance: str = "a") -> list[Series]:
        rest = [Series(o.name, {**o.labels, "instance": instance}, o.pieces) for o in others]
        return made(*pieces, instance=instance) + rest

    return both


def renamed(cases: Sequence[Case], what: str) -> list[Case]:
    return [Case(f"{what}: {one.name}", one.kinds, one.series, one.at, one.says) for one in cases]


APPLICATIONS: dict[str, list[Case]] = {
    "HighRefusalRate": [
        *shares(
            series_of(REFUSED, operation="subscribe"),
            # Commands that need no permission make no share smaller.
            beside(series_of(COMMANDS, method="subscribe"),
                   app(COMMANDS, climb(1000, "40m"), method="rpc")),
        ),
        Case("every fourth publication and reading of history", "fires",
             [app(REFUSED, climb(1, "20m"), operation="publish"),
              app(REFUSED, climb(1, "20m"), operation="history"),
              app(COMMANDS, climb(4, "20m"), method="publish"),
              app(COMMANDS, climb(4, "20m"), method="history")],
             {"18m": firing()},
             ("18m", "25% of the commands that need a permission are refused")),
    ],
    "HighAPIErrorRate": [
        *renamed(
            shares(
                beside(series_of(API_ERRORS, code="102"),
                       app(API_REQUESTS, hold(0, "40m"), result="unauthorized")),
                series_of(API_REQUESTS, result="ok"), job=JOB,
            ), "errors, all of them in batches",
        ),
        *renamed(
            shares(
                beside(series_of(API_REQUESTS, result="unauthorized"),
                       app(API_ERRORS, hold(0, "40m"), code="102")),
                series_of(API_REQUESTS, result="ok"), is_part=True, job=JOB,
            ), "no key",
        ),
        Case("a key that may not, and a channel that does not exist", "fires",
             [app(API_ERRORS, climb(1, "20m"), code="102"),
              app(API_REQUESTS, climb(1, "20m"), result="error"),
              app(API_REQUESTS, climb(1, "20m"), result="forbidden"),
              app(API_REQUESTS, climb(8, "20m"), result="ok")],
             {"18m": firing(job=JOB)},
             ("18m", "20% as many errors as requests to the server API")),
    ],
    "TokenRefreshFailing": [
        Case("10.4 a minute, of both kinds", "fires boundary resolves",
             [app(REFRESHES, *burst(ABOVE / 2), kind="connection"),
              app(REFRESHES, *burst(ABOVE / 2), kind="subscription")],
             {"9m30s": [], "9m45s": pending(), "14m30s": pending(), "14m45s": firing(), "15m": []},
             ("14m45s", "10.4 refreshes per minute fail or do not come: those users are disconnected")),
        Case("9.6 a minute", "below",
             [app(REFRESHES, climb(BELOW, "20m"), kind="connection")], {"18m": []}),
        Case("the replica goes", "vanishes",
             [app(REFRESHES, climb(1, "10m"), gone("9m"), kind="connection")],
             {"9m45s": firing(), "16m": []}),
        Case("two replicas, 6 a minute each", "replicas",
             [app(REFRESHES, climb(HALF, "20m"), kind="connection", instance=i) for i in "ab"],
             {"18m": firing()}),
    ],
    "SlowHandlers": [
        *shares(series_of(SLOW, kind="rpc"),
                # Quick handlers of another kind hide no slow ones.
                beside(series_of(HANDLED, kind="rpc"),
                       app(HANDLED, climb(1000, "40m"), kind="message"),
                       app(SLOW, hold(0, "40m"), kind="message")),
                kind="rpc"),
        Case("every fourth subscribe", "fires",
             [app(SLOW, climb(1, "20m"), kind="subscribing"),
              app(HANDLED, climb(4, "20m"), kind="subscribing"),
              app(SLOW, hold(0, "10m"), add(0, "10m"), kind="rpc"),
              app(HANDLED, climb(4, "20m"), kind="rpc")],
             {"18m": firing(kind="subscribing")},
             ("18m", "25% of the subscribing handlers take more than half of their time limit")),
    ],
}  # fmt: skip
