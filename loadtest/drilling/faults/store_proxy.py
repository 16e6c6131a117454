"""A proxy between a cluster and its store, with one fault: a worker whose subscriptions are silent.

`python -m loadtest.drilling.faults.store_proxy LISTEN_PORT STORE_PORT` forwards both ways. After SIGUSR1
it drops everything that the store sends to the subscriptions of one worker, also on new connections, while
the worker's requests still arrive: the subscription is silently dead. SIGUSR2 ends that by closing the
connections that lost data. A worker is identified by its canary channel, to which it subscribes first.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from typing import Final

# {prefix:database:i:canary:NAME:NUMBER}.pub, as the worker's canary calls its channel.
_CANARY: Final = re.compile(rb"ssubscribe\r\n\$\d+\r\n\{[^}]*:canary:([^}]+):\d+\}", re.IGNORECASE)
_KEPT_BYTES: Final = 256
_CHUNK_BYTES: Final = 65536


class StoreProxy:
    """All connections, and the name of the worker whose subscriptions are dropped."""

    def __init__(self, store_port: int) -> None:
        self._store_port = store_port
        self._pairs: set[_Pair] = set()
        self.deaf: bytes | None = None

    def deafen(self) -> None:
        """Choose a connected worker, and drop what the store sends to it."""
        names = sorted(pair.worker for pair in self._pairs if pair.worker)
        self.deaf = names[0] if names else None

    def restore(self) -> None:
        """Forward everything again; connections that lost data are closed."""
        self.deaf = None
        for pair in list(self._pairs):
            if pair.has_dropped:
                pair.abort()

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
        self.has_dropped = False
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
                self._find_worker(data)
            self._store[1].write(data)
            await self._store[1].drain()

    def _find_worker(self, data: bytes) -> None:
        if found := _CANARY.search(self._tail + data):
            self.worker = found[1]
        self._tail = (self._tail + data)[-_KEPT_BYTES:]

    async def _answers(self) -> None:
        while data := await self._store[0].read(_CHUNK_BYTES):
            if self.worker is not None and self.worker == self._store_proxy.deaf:
                self.has_dropped = True
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
    loop.add_signal_handler(signal.SIGUSR2, store_proxy.restore)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await asyncio.start_server(store_proxy.forward, "127.0.0.1", port)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
