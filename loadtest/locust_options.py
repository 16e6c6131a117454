"""What the load test adds to Locust's command line."""

from __future__ import annotations

import argparse
from typing import Final

from locust.argument_parser import LocustArgumentParser

SCENARIO_NAMES: Final = (
    "steady",
    "idle",
    "connections",
    "churn",
    "throughput",
    "errors",
    "sessions",
    "slow-readers",
    "reconnects",
    "calls",
    "mixed",
)
_SHAPE_NAMES: Final = ("ramp", "spike", "soak", "churn", "stages")
_ERROR_KINDS: Final = ("rpc", "channel", "permission", "frame", "token", "flood", "all")


def add(parser: LocustArgumentParser) -> None:
    """Add the arguments."""
    add_one = parser.add_argument
    add_one("--scenario", choices=SCENARIO_NAMES, default="mixed", help="which users (mixed)")
    add_one("--shape", choices=("", *_SHAPE_NAMES), default="", help="users over time")
    add_one("--channels", type=_positive, default=5, help="how many channels there are (5)")
    add_one("--channel-prefix", default="load-", help="beginning of their names (load-)")
    add_one("--namespace", default="", help="namespace of the channels; empty for none")
    add_one(
        "--rate", type=float, default=0.0, help="acts per second of all users of a class together"
    )
    add_one("--payload", type=_positive, default=128, help="bytes of a publication's data (128)")
    add_one(
        "--error-kind", choices=_ERROR_KINDS, default="rpc", help="which mistakes are made (rpc)"
    )
    add_one("--method", default="echo", help="the procedure that is called (echo)")
    add_one("--token", default="", help="connection token", is_secret=True)
    add_one("--token-file", default="", help="file with the connection token")
    add_one(
        "--sample", type=_positive, default=1, help="every so many deliveries are Locust events (1)"
    )
    add_one(
        "--expect", default="", help="limits, such as p99_ms=250,lost=0; exit code 1 if not met"
    )
    add_one("--ledger-file", default="", help="write the account here, as JSON, every second")
    add_one(
        "--metrics-listen",
        default="",
        env_var="LOCUST_METRICS_LISTEN",
        metavar="HOST:PORT",
        help="serve /metrics for Prometheus there; not by workers",
    )
    add_one("--knee-p99-ms", type=float, default=250.0, help="ramp: p99 that is too much (250)")
    add_one("--knee-error-share", type=float, default=0.01, help="ramp: failures that are too many")
    add_one("--step-seconds", type=float, default=10.0, help="ramp, stages: length of a step (10)")
    add_one("--soak-seconds", type=float, default=1200.0, help="soak and churn: how long (1200)")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("give a number above 0")
    return number
