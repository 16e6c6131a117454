"""One worker of ours that measures the longest turn of its own event loop.

The rpc method `longest_turn` answers with milliseconds and begins anew: `cpu` is the CPU time of the
loop's thread between two runs of a timer of one millisecond, at most; an upper bound of the longest
turn. `wall` is the same by the clock, in which other processes of the machine may have run; `held` is `wall`
without the time for which the thread was ready and waited for a core, and so has what it was blocked.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.one_worker import serve
from benchmarks.paths import BENCHMARKS, pin_to_server_core

_TICK_SECONDS = 0.001


def waited_seconds() -> float:
    """How long this thread was ready and waited for a core; 0 where the kernel does not count it."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


class TurnWatch:
    """Runs a timer and remembers the longest time between two of its runs."""

    def __init__(self) -> None:
        self._is_running = False
        self._cpu = self._wall = self._waited = 0.0
        self._reset()

    def _reset(self) -> None:
        self._longest_cpu = self._longest_wall = self._longest_held = 0.0

    async def longest_turn(self, _user: str, _data: Any) -> Any:
        if not self._is_running:
            self._is_running = True
            self._begin()
            asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)
        longest = {
            "cpu": self._longest_cpu * 1000,
            "wall": self._longest_wall * 1000,
            "held": self._longest_held * 1000,
        }
        self._reset()
        return longest

    def _begin(self) -> None:
        self._cpu, self._wall = time.thread_time(), time.monotonic()
        self._waited = waited_seconds()

    def _tick(self) -> None:
        self._longest_cpu = max(self._longest_cpu, time.thread_time() - self._cpu)
        wall = time.monotonic() - self._wall
        self._longest_wall = max(self._longest_wall, wall)
        self._longest_held = max(self._longest_held, wall - (waited_seconds() - self._waited))
        self._begin()
        asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--redis", required=True)
    given = arguments.parse_args()
    pin_to_server_core()
    handlers = {"longest_turn": TurnWatch().longest_turn}
    return serve(BENCHMARKS / "attacks" / "attacked.toml", given.port, given.redis, handlers)


if __name__ == "__main__":
    sys.exit(main())
