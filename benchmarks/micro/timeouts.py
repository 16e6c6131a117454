"""`python -m benchmarks.micro.timeouts`: a wait that is bounded by our shared timer, by `asyncio.timeout`, by nothing.

Measured is this process's CPU time for each wait, on uvloop; what is awaited comes in the next turn of the loop.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import uvloop

from benchmarks.micro.comparison import Figure, Way, machine, measured, table
from benchmarks.paths import pin_to_server_core
from cluster.shared_timeout import SharedTimeout

WAITS = 50_000
ROUNDS = 7
SECONDS = 5.0


def _in_the_next_turn() -> "asyncio.Future[None]":
    loop = asyncio.get_running_loop()
    awaited = loop.create_future()
    loop.call_soon(awaited.set_result, None)
    return awaited


async def _within(context: Callable[[], Any]) -> float:
    begun = time.process_time()
    for _ in range(WAITS):
        with context():
            await _in_the_next_turn()
    return (time.process_time() - begun) / WAITS * 1e6


async def _asyncio() -> float:
    begun = time.process_time()
    for _ in range(WAITS):
        async with asyncio.timeout(SECONDS):
            await _in_the_next_turn()
    return (time.process_time() - begun) / WAITS * 1e6


def ways() -> list[Way]:
    return [
        Way("wait", "without a bound", partial(_within, nullcontext)),
        Way("wait", "our shared timer", partial(_within, SharedTimeout(SECONDS))),
        Way("wait", "asyncio.timeout", _asyncio),
    ]


def measure() -> list[Figure]:
    return uvloop.run(measured(ways(), ROUNDS))


if __name__ == "__main__":
    pin_to_server_core()
    print(f"{table(measure())}\n\n{machine()}")
