"""`python -m benchmarks.hold.crowd`: one process with thousands of held connections.

They come from a few loopback addresses, each of which has 28,000 ports of its own. Each line of standard output is
a JSON object: `opened` when all are subscribed, `number` when all have that publication, `back` when all are
subscribed after some were closed, and at SIGTERM the totals. Times are CLOCK_MONOTONIC, which all
processes of a machine share.
"""

import argparse
import asyncio
import gc
import itertools
import json
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import asdict

import uvloop

from benchmarks.hold.held import Held, Totals
from benchmarks.load.wire import upgrade_request
from benchmarks.processes import HOST
from benchmarks.raise_limits import raise_open_files

PATH = "/connection/websocket"
CHANNEL = "held:all"
#: An SDK waits so long at random before its first attempt, and doubles it with each that fails.
FIRST_DELAY_SECONDS = 0.5
LAST_DELAY_SECONDS = 20.0
AT_ONCE = 64
#: The kernel finds a free port quickly while most of an address's ports are free.
CONNECTIONS_PER_ADDRESS = 4_000
OPENING_SECONDS = 60.0


def say(**values: object) -> None:
    print(json.dumps(values | {"at": time.monotonic()}), flush=True)


class Crowd:
    """Opens the connections, and opens them again whenever they are closed."""

    def __init__(self, port: int, network: str, connections: int) -> None:
        self.totals = Totals()
        self.request = upgrade_request("localhost", PATH)
        self.channel = CHANNEL
        self._port, self._connections = port, connections
        hosts = range(1, 2 + connections // CONNECTIONS_PER_ADDRESS)
        self._addresses = itertools.cycle([f"{network}.{host}" for host in hosts])
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._open = 0
        self._has_opened = False
        self._seen: Counter[int] = Counter()
        self._attempts: Counter[Held] = Counter()
        self._waiting: dict[Held, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False

    def gather(self) -> None:
        for _ in range(self._connections):
            self._again(Held(self), 0.0)

    def ready(self, held: Held) -> None:
        self._open += 1
        self._attempts.pop(held, None)
        self._finish(held)
        if self._open == self._connections:
            say(**{"back" if self._has_opened else "opened": self._open})
            self._has_opened = True

    def delivered(self, offset: int) -> None:
        self._seen[offset] += 1
        if self._seen[offset] == self._connections:
            say(number=offset)
            del self._seen[offset]

    def lost(self, held: Held) -> None:
        self._open -= held.is_ready
        held.is_ready = False
        self._finish(held)
        if not self._is_over:
            attempts = self._attempts[held]
            self._attempts[held] += 1
            longest = min(LAST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0**attempts)
            self._again(held, random.uniform(0.0, longest))

    def _finish(self, held: Held) -> None:
        opening = self._waiting.pop(held, None)
        if opening is not None and not opening.done():
            opening.set_result(None)

    def _again(self, held: Held, delay: float) -> None:
        task = asyncio.get_running_loop().create_task(self._reopen(held, delay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reopen(self, held: Held, delay: float) -> None:
        await asyncio.sleep(delay)
        async with self._gate:
            loop = asyncio.get_running_loop()
            self._waiting[held] = opening = loop.create_future()
            try:
                async with asyncio.timeout(OPENING_SECONDS):
                    await loop.create_connection(
                        lambda: held, HOST, self._port, local_addr=(next(self._addresses), 0)
                    )
                    await opening
            except (OSError, TimeoutError) as error:
                self._waiting.pop(held, None)
                self.totals.count_error(repr(error))
                if held.transport is not None:
                    held.transport.abort()
                else:
                    self.lost(held)

    def end(self) -> None:
        """Say the totals, and let nobody come back."""
        self._is_over = True
        say(open=self._open, behind=dict(self._seen), totals=asdict(self.totals))


async def run(port: int, network: str, connections: int, seconds: float) -> None:
    crowd, is_over = Crowd(port, network, connections), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, is_over.set)
    crowd.gather()
    try:
        async with asyncio.timeout(seconds):
            await is_over.wait()
    except TimeoutError:
        pass
    crowd.end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--network", required=True, help="where they come from, such as 127.1.0")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=900.0, help="it stops by itself then")
    given = parser.parse_args()
    raise_open_files()
    gc.freeze()
    gc.disable()
    uvloop.run(run(given.port, given.network, given.connections, given.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
