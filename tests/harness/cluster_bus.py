"""The bus of a Redis Cluster, through which its nodes talk to each other, and which can be cut.

A node announces a port of here instead of its own. Clients are served beside it, so a node whose bus is cut is
reached by them as before. The first packet of a connection names its sender (clusterMsg in
https://github.com/valkey-io/valkey/blob/8.0/src/cluster_legacy.h): sig, totlen, ver, port, type, count,
currentEpoch, configEpoch and offset are its first 40 bytes, the name is the next 40.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

_HEAD_BYTES = 80
_NAME = slice(40, 80)


class ClusterBus:
    """Forwards the connections between nodes; an async context manager."""

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._pairs: set[_Pair] = set()
        self._cut_names: set[str] = set()
        self._cut_ports: set[int] = set()

    async def port_to(self, target: int) -> int:
        """Open the port to announce for a node whose own bus port is `target`."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._forward(target, reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def cut(self, name: str, target: int) -> None:
        """Cut the node of this name, whose own bus port is `target`, off from all others."""
        self._cut_names.add(name)
        self._cut_ports.add(target)
        for pair in self._pairs:
            if self._is_cut(pair):
                pair.abort()

    def heal(self) -> None:
        """Let all nodes connect again."""
        self._cut_names.clear()
        self._cut_ports.clear()

    def _is_cut(self, pair: _Pair) -> bool:
        return pair.sender in self._cut_names or pair.target in self._cut_ports

    async def _forward(
        self, target: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        pair = _Pair(target, writer)
        try:
            head = await reader.readexactly(_HEAD_BYTES)
            pair.sender = head[_NAME].decode("ascii")
            if self._is_cut(pair):
                return
            self._pairs.add(pair)
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
            pair.writers.append(far_writer)
            far_writer.write(head)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, far_writer))
                group.create_task(_pump(far_reader, writer))
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._pairs.discard(pair)
            pair.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Pair:
    """One connection between two nodes."""

    def __init__(self, target: int, writer: asyncio.StreamWriter) -> None:
        self.target = target
        self.sender = ""
        self.writers = [writer]

    def abort(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        with contextlib.suppress(OSError):
            await writer.drain()
    # One side ended; the other pump ends with it.
    writer.transport.abort()
