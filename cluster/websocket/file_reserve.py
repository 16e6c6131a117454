"""File descriptors that clients do not get, and listening sockets that wait while there are too few.

At the limit of open files libuv accepts and drops connections without an answer, and the links to the
store cannot be opened again. So clients above the reserve are refused with 503, and with the last
descriptors accepting stops: connections then wait in the kernel's queue.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from cluster.log import get_logger

log = get_logger()

#: Kept for the store's links, files, and the sockets of clients that are refused; less if the limit is low.
RESERVED_FILES: Final = 32

_WARN_EVERY_SECONDS: Final = 10.0
# From Python 3.13 on, a server removes the file of its unix socket unless it is told not to.
_KEEPS_FILE: Final[dict[str, Any]] = (
    {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
)


def soft_limit() -> int:
    """The number of files that this process may open now."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return soft if soft != resource.RLIM_INFINITY else 2**30


class PausableListener:
    """Accepts connections on sockets, which stay open while it is paused.

    Args:
        factory: makes the protocol of each connection.
        sockets: of TCP or unix sockets; they stay the caller's.
    """

    def __init__(
        self,
        factory: Callable[[], asyncio.BaseProtocol],
        sockets: Sequence[socket.socket],
        backlog: int,
    ) -> None:
        self._factory = factory
        self._sockets = sockets
        self._backlog = backlog
        self._servers: list[asyncio.Server] = []
        self._is_closed = False
        self._warned_at = -_WARN_EVERY_SECONDS

    async def open(self) -> None:
        """Accept from now on."""
        if not self._servers and not self._is_closed:
            for sock in self._sockets:
                self._servers.append(await self._serve(sock.dup()))

    async def _serve(self, sock: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if sock.family == socket.AF_UNIX:
            return await loop.create_unix_server(
                self._factory, sock=sock, backlog=self._backlog, **_KEEPS_FILE
            )
        return await loop.create_server(self._factory, sock=sock, backlog=self._backlog)

    def close(self) -> None:
        """Accept nothing more."""
        self._is_closed = True
        self.pause()

    def pause(self) -> None:
        """Accept nothing until there are descriptors again."""
        while self._servers:
            self._servers.pop().close()

    async def resume(self) -> None:
        """Accept again if it was paused and descriptors are left."""
        if not self._servers and not self._is_closed and self._has_room():
            await self.open()

    def _has_room(self) -> bool:
        """Whether half of the reserve is free, found out by opening as many descriptors."""
        found: list[int] = []
        try:
            while len(found) <= reserved(soft_limit()) // 2:
                found.append(os.dup(self._sockets[0].fileno()))
        except OSError:
            return False
        finally:
            for one in found:
                os.close(one)
        return True

    def admits(self, transport: asyncio.Transport) -> bool:
        """Whether a connection that was accepted may become a client; with the last descriptors, pause.

        A new descriptor is the lowest that is free, so all below it are in use.
        """
        limit = soft_limit()
        left = limit - transport.get_extra_info("socket").fileno()
        kept = reserved(limit)
        if left > kept:
            return True
        now = time.monotonic()
        if now - self._warned_at >= _WARN_EVERY_SECONDS:
            self._warned_at = now
            log.warning("file_limit_reached", limit=limit)
        if left <= kept // 4:
            self.pause()
        return False


def reserved(limit: int) -> int:
    """How many of the files that may be open are kept back."""
    return min(RESERVED_FILES, limit // 4)
