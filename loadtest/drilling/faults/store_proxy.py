"""The store_proxy between a cluster and its store, with one fault: a worker that no longer hears.

`python -m loadtest.drilling.faults.store_proxy LISTEN_PORT STORE_PORT` forwards both ways. SIGUSR1 swallows what
the store says to the subscriptions of one worker, from now on and on every new connection, while
its requests still arrive: a subscription that is silently dead. SIGUSR2 ends it by closing what was
swallowed. A worker is known by its canary, to which each subscribes first.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from typing import Final

# {prefix:canary:NAME:NUMBER}.pub, as the worker's canary calls its channel.
_CANARY: Final = re.compile(rb"ssubscribe\r\n\$\d+\r\n\{[^}]*:canary:([^}]+):\d+\}", re.IGNORECASE)
_KEPT_BYTES: Final = 256
_CHUNK_BYTES: Final = 65536


class StoreProxy:
    """All connections, and the name of the worker that is deaf."""

    def __init__(self, store_port: int) -> None:
        self._store_port = store_port
        self._pairs: set[_Pair] = set()
        self.deaf: bytes | None = None

    def deafen(self) -> None:
        """Choose a worker that is connected, and let it hear nothing."""
        names = sorted(pair.worker for pair in self._pairs if pair.worker)
        self.deaf = names[0] if names else None

    def heal(self) -> None:
        """Let everybody hear; what was swallowed is lost, so its connections end."""
        self.deaf = None
        for pair in list(self._pairs):
            if pair.has_swallowed:
                pair.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until either side ends."""
        try:
            onward = await asyncio.open_connection("127.0.0.1", self._store_port)
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(self, (reader, writer), onward)
        self._pairs.add(pair)
        try:
            await pair.run()
        finally:
            self._pairs.discard(pair)


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Pair:
    def __init__(self, store_proxy: StoreProxy, worker: Ends, store: Ends) -> None:
        self.worker: bytes | None = None
        self.has_swallowed = False
        self._store_proxy = store_proxy
        self._worker = worker
        self._store = store
        self._tail = b""

    async def run(self) -> None:
        sides = [asyncio.create_task(self._requests()), asyncio.create_task(self._answers())]
        try:
            await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)
            self.abort()

    async def _requests(self) -> None:
        while data := await self._worker[0].read(_CHUNK_BYTES):
            if self.worker is None:
                self._look(data)
            self._store[1].write(data)
            await self._store[1].drain()

    def _look(self, data: bytes) -> None:
        if found := _CANARY.search(self._tail + data):
            self.worker = found[1]
        self._tail = (self._tail + data)[-_KEPT_BYTES:]

    async def _answers(self) -> None:
        while data := await self._store[0].read(_CHUNK_BYTES):
            if self.worker is not None and self.worker == self._store_proxy.deaf:
                self.has_swallowed = True
                continue
            self._worker[1].write(data)
            await self._worker[1].drain()

    def abort(self) -> None:
        for _, writer in (self._worker, self._store):
            writer.transport.abort()


async def _serve(port: int, store_port: int) -> None:
    store_proxy = StoreProxy(store_port)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, store_proxy.deafen)
    loop.add_signal_handler(signal.SIGUSR2, store_proxy.heal)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await asyncio.start_server(store_proxy.carry, "127.0.0.1", port)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    # Whoever is stopped in the middle of a connection is: nothing is written down here.
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
