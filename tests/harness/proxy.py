"""A TCP proxy that injects network faults while it runs: delay, black hole, half-open, deaf, cut.

`heal` restores the network as a real one does: what a black hole held is delivered late and in order (TCP
sends it again), what was forgotten by a half-open fault stays dead until one side gives up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from types import TracebackType
from typing import Self

_CHUNK = 65536


class _Pair:
    """One client connection and its connection to the target."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.is_forgotten = False
        self.is_deaf = False
        self.writers: list[asyncio.StreamWriter] = []

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            await self.proxy.is_open.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.proxy.target)
            self.writers.append(far_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer, is_reply=False))
                group.create_task(self._pump(far_reader, writer, is_reply=True))
        except* OSError:
            pass
        finally:
            self.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_reply: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        forward = asyncio.create_task(self._forward(queue, writer))
        try:
            while data := await reader.read(_CHUNK):
                if self.is_forgotten or (self.is_deaf and is_reply):
                    self.proxy.swallowed["reply" if is_reply else "request"] += len(data)
                    continue
                queue.put_nowait((loop.time() + self.proxy.delay, data))
            queue.put_nowait((loop.time(), b""))
            await forward
        finally:
            forward.cancel()

    async def _forward(
        self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await queue.get()
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            await self.proxy.is_open.wait()
            if not data:
                # One side ended: the other is closed too, so both pumps finish.
                self.abort()
                return
            writer.write(data)
            with contextlib.suppress(OSError):
                await writer.drain()

    def abort(self) -> None:
        if self.is_forgotten:
            return
        for writer in self.writers:
            writer.transport.abort()


class FaultProxy:
    """Listens on `port` and forwards to `target`; an async context manager."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.delay = 0.0
        self.accepted = 0
        self.swallowed: Counter[str] = Counter()
        self.is_open = asyncio.Event()
        self.is_open.set()
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        for pair in self._pairs:
            pair.is_forgotten = False
            pair.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        pair = _Pair(self)
        self._pairs.add(pair)
        task = asyncio.create_task(pair.run(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def slow_down(self, seconds: float) -> None:
        """Delay every chunk, both ways, keeping its order."""
        self.delay = seconds

    def black_hole(self) -> None:
        """Let nothing through; connections stay open, new ones are accepted and receive nothing."""
        self.is_open.clear()

    def half_open(self) -> None:
        """Drop every present connection without closing either side; new ones work."""
        for pair in self._pairs:
            pair.is_forgotten = True

    def deafen(self) -> None:
        """Let requests of the present connections through and swallow all answers; new ones work."""
        for pair in self._pairs:
            pair.is_deaf = True

    async def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for pair in self._pairs:
            pair.abort()

    async def heal(self) -> None:
        """Restore the network."""
        self.delay = 0.0
        self.is_open.set()
        if self._server is None:
            await self.__aenter__()
