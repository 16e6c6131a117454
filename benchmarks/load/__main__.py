"""`python -m benchmarks.load RUN …`: one measurement of one server, one JSON object on stdout.

Exit code 1 and one sentence on stderr when the server cannot be reached or refuses.
"""

import argparse
import gc
import json
import os
import sys
from dataclasses import asdict

import uvloop

from benchmarks.load.measure import Result
from benchmarks.load.pool import ConnectionPool
from benchmarks.load.protocols import PROTOCOLS
from benchmarks.load.runs import RUNS, Order
from benchmarks.raise_limits import raise_open_files


def _pids(text: str) -> tuple[str, list[int]]:
    name, _, pids = text.partition("=")
    return name, [int(pid) for pid in pids.split(",") if pid]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Order()
    parser.add_argument("run", choices=sorted(RUNS))
    parser.add_argument("--dialect", choices=sorted(PROTOCOLS), required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, action="append", required=True, help="repeatable")
    parser.add_argument("--connections", type=int, default=default.connections)
    parser.add_argument("--at-once", type=int, default=64, help="connections being opened")
    parser.add_argument("--in-flight", type=int, default=default.in_flight)
    parser.add_argument("--rate", type=float, default=0.0, help="publishes/s; 0 = closed loop")
    parser.add_argument("--channels", type=int, default=default.channels)
    parser.add_argument("--channel", default=default.channel)
    parser.add_argument("--size", type=int, default=default.size, help="bytes of JSON data")
    parser.add_argument("--warm-up", type=float, default=default.warm_up_seconds, help="seconds")
    parser.add_argument("--window", type=float, default=default.window_seconds, help="seconds")
    parser.add_argument("--answer", default=default.answer.decode(), help="what marks an answer")
    parser.add_argument(
        "--spread-publishers", action="store_true", help="over all ports, not at the first only"
    )
    parser.add_argument(
        "--awake", action="store_true", help="poll instead of sleeping while the window is measured"
    )
    parser.add_argument(
        "--arrivals", action="store_true", help="of a broadcast: also when it arrives at sockets"
    )
    parser.add_argument("--core", type=int, help="stay on this core")
    parser.add_argument(
        "--watch", type=_pids, action="append", default=[], metavar="NAME=PID,PID",
        help="processes whose CPU is measured; server's memory too",
    )  # fmt: skip
    return parser.parse_args()


async def _measure(given: argparse.Namespace) -> Result:
    order = Order(
        connections=given.connections,
        in_flight=given.in_flight,
        rate=given.rate,
        channels=given.channels,
        size=given.size,
        warm_up_seconds=given.warm_up,
        window_seconds=given.window,
        channel=given.channel,
        answer=given.answer.encode(),
        is_awake=given.awake,
        is_spread=given.spread_publishers,
        has_arrivals=given.arrivals,
        watched=dict(given.watch),
    )
    pool = ConnectionPool(PROTOCOLS[given.dialect], given.host, given.port, given.at_once)
    try:
        return await RUNS[given.run](pool, order)
    finally:
        await pool.close()


def main() -> int:
    given = _arguments()
    raise_open_files()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
    gc.disable()
    try:
        result = uvloop.run(_measure(given))
    except (OSError, TimeoutError, ExceptionGroup) as failure:
        cause = failure.exceptions[0] if isinstance(failure, ExceptionGroup) else failure
        print(f"{given.run} against port {given.port}: {cause!r}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
