"""Mutants that no case can notice, each with its reason."""

from __future__ import annotations

_CONTINUOUS = (
    "the value is computed in floating point, and no case can put it exactly on the threshold:"
    " 10 a minute is 10.000000000000002"
)
_NOT_NEGATIVE = "a sum of what is never negative is 0 exactly when its maximum is"
_ONE_SERIES = "an instance, or a rule group, has one series of it: every aggregation gives the same"
_OTHER_SIDE = "the other operand still has the matcher, and only series of both are matched"
_WHOLE = "restarts are whole numbers: two read as 2.03 at most and three as 3 at least"

_LAG = "instance:app_event_loop_lag_seconds:p99_rate5m: "
_RATIO = "job:app_error_ratio:rate"

# (alert, what was changed) -> why.
SURVIVORS: dict[tuple[str, str], str] = {
    **{
        (alert, f"comparison {number}: > -> >="): _CONTINUOUS
        for alert, numbers in {
            "HighErrorRate": (1,),
            "SlowShutdownTime": (1,),
            "HighCPUUsage": (1,),
            "EventLoopLag": (1,),
            "WorkerCPUSaturated": (1,),
            "SlowConsumers": (1,),
            "MemoryWillHitLimit": (1,),
            "HighClientErrorRate": (1,),
            "HighLogErrorRate": (1,),
            "ErrorBudgetFastBurn": (1, 2, 3, 4),
            "NotificationsFailing": (1,),
            "HighRefusalRate": (1, 2),
            "HighAPIErrorRate": (1, 2),
            "TokenRefreshFailing": (1,),
            "SlowHandlers": (1, 2),
        }.items()
        for number in numbers
    },
    **{
        ("ErrorBudgetFastBurn", f"{_RATIO}{window}: comparison 1: > -> >="): _CONTINUOUS
        for window in ("5m", "30m", "1h", "6h")
    },
    ("LowMessageThroughput", "comparison 1: < -> <="): _CONTINUOUS,
    ("NoActiveConnections", "word 1: sum -> max"): _NOT_NEGATIVE,
    ("LowMessageThroughput", "word 4: sum -> max"): _NOT_NEGATIVE,
    **{
        (alert, f"{place}word 1: {word}"): _ONE_SERIES
        for alert, place, words in (
            ("EventLoopLag", _LAG, ("sum -> max", "sum -> min")),
            ("MetricsFilesCorrupt", "", ("sum -> max", "sum -> min")),
            ("RuleEvaluationFailures", "", ("sum -> max", "sum -> min")),
            ("AppScrapeSlow", "", ("max -> min", "max -> sum")),
            ("BrokerDisconnected", "", ("min -> max",)),
        )
        for word in words
    },
    ("HighDiskUsage", 'matcher 1: ,mountpoint="/" -> nothing'): _OTHER_SIDE,
    ("HighDiskUsage", 'matcher 2: ,mountpoint="/" -> nothing'): _OTHER_SIDE,
    ("WorkerCrashLooping", "number 1: 2.5 -> 2.75"): _WHOLE,
    ("WorkerCrashLooping", "number 1: 2.5 -> 2.25"): _WHOLE,
    ("WorkerCrashLooping", "comparison 1: > -> >="): _WHOLE,
}
