"""Opens connections at a bounded pace and closes them again."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.load.clients import Counters, Opening, Sink
from benchmarks.load.protocols import WireProtocol

OPENING_TIMEOUT_SECONDS = 20.0


@dataclass(slots=True)
class ConnectionPool:
    """All connections of one run, spread over the ports in turn."""

    protocol: WireProtocol
    host: str
    ports: Sequence[int]
    at_once: int = 64
    counters: Counters = field(default_factory=Counters)
    parts: list[Sink] = field(default_factory=list)
    opening_seconds: list[float] = field(default_factory=list)

    async def open(
        self, wanted: Sequence[tuple[str, Sink]], ports: Sequence[int] | None = None
    ) -> None:
        """Open a connection for each (channel, part), at most `at_once` being opened.

        Args:
            ports: where to, instead of all ports in turn.

        Raises:
            TimeoutError, OSError: when one of them cannot be opened.
        """
        gate = asyncio.Semaphore(self.at_once)
        targets = ports or self.ports

        async def one(index: int, channel: str, part: Sink) -> None:
            async with gate:
                await self._open_one(targets[index % len(targets)], channel, part)

        first = len(self.parts)
        self.parts += [part for _, part in wanted]
        async with asyncio.TaskGroup() as group:
            for index, (channel, part) in enumerate(wanted, start=first):
                group.create_task(one(index, channel, part))

    async def _open_one(self, port: int, channel: str, part: Sink) -> None:
        begun = time.perf_counter()
        async with asyncio.timeout(OPENING_TIMEOUT_SECONDS):
            _, opening = await asyncio.get_running_loop().create_connection(
                lambda: Opening(self.protocol, self.host, channel, part), self.host, port
            )
            await opening.opened
        self.opening_seconds.append(time.perf_counter() - begun)

    async def close(self) -> None:
        """Drop every connection; what the server does about it is no longer counted."""
        self.counters.is_over = True
        for part in self.parts:
            if part.transport is not None:
                part.transport.abort()
        self.parts.clear()
        await asyncio.sleep(0.05)
        self.counters.is_over = False
