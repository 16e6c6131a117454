"""`python -m benchmarks.micro.tags_filter`: the most that a client's filter on tags may cost.

Measured is this process's CPU time for compiling a filter of 63 comparisons of long numbers, about the
longest that is allowed, and for asking it about one publication, which none of them lets pass.
"""

import time

import orjson
import uvloop

from benchmarks.micro.comparison import Figure, Way, machine, measured, table
from benchmarks.paths import pin_to_server_core
from cluster.tags_filter import MAXIMUM_BYTES, compiled

COMPARISONS = 63
TIMES = 500
ROUNDS = 7
FILTER = orjson.dumps(
    {
        "op": "or",
        "nodes": [
            {"key": "k", "cmp": "gt", "val": "9" * 60 + f"{number:03}"}
            for number in range(COMPARISONS)
        ],
    }
)
TAGS = {"k": "1" * 63}


async def _compile() -> float:
    begun = time.process_time()
    for _ in range(TIMES):
        compiled(FILTER)
    return (time.process_time() - begun) / TIMES * 1e6


async def _ask() -> float:
    asked = compiled(FILTER)
    assert not asked.passes(TAGS), "all comparisons are made"
    begun = time.process_time()
    for _ in range(TIMES):
        asked.passes(TAGS)
    return (time.process_time() - begun) / TIMES * 1e6


def ways() -> list[Way]:
    return [Way("compile", f"{len(FILTER)} bytes", _compile), Way("ask", "one publication", _ask)]


def measure() -> list[Figure]:
    assert len(FILTER) <= MAXIMUM_BYTES, "a filter that is allowed"
    return uvloop.run(measured(ways(), ROUNDS))


if __name__ == "__main__":
    pin_to_server_core()
    print(f"{table(measure())}\n\n{machine()}")
