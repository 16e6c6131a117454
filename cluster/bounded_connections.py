"""Accepts the connections of an aiohttp server, and bounds their number and how long each may be silent.

The admin port, the metrics of the incident tracker and the stand-in receiver are served so.

Rules
- At most `limit` connections are open, and the last `kept_places(limit)` are for this machine's own
  addresses, so that strangers cannot keep out an operator who has logged in here.
- If there is no place, the oldest connection without a request in progress is closed for the new one:
  silent connections keep nobody out, and a request in progress is never interrupted for another.
- A connection never takes one of the last descriptors (`KEPT_BACK_FILES`): it is closed at once.
  asyncio's own accept logs EMFILE once per place of the backlog and turn of the loop, and libuv's closes
  everything that waits; here accepting pauses.
- The head of a request, the time between two requests, and the writing of a response have a limit
  each. A head that began in one piece with the request before has the limit of the time between two. Handlers
  bound what they wait for themselves.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Final, cast

from aiohttp import web

from cluster import log
from cluster.addresses import parse
from cluster.http_connection import LingeringConnection
from cluster.kept_back_files import has_few_files_left

HEAD_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 75.0
WRITE_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 5.0
#: A header through the proxies of an organisation may hold large cookies.
LONGEST_FIELD_BYTES: Final = 32768
_MOST_KEPT_PLACES: Final = 16
_ACCEPTED_PER_TURN: Final = 32
_PAUSE_SECONDS: Final = 0.5
_SWEEP_SECONDS: Final = 0.5
# aiohttp closes idle connections itself.
_LIMITS: Final = {"head": HEAD_SECONDS, "closing": CLOSE_SECONDS}

#: Counts a connection that was closed early: limit, displaced, descriptors or timeout.
Refused = Callable[[str], None]


def kept_places(limit: int) -> int:
    """How many of `limit` connections are for this machine's own addresses only."""
    return min(_MOST_KEPT_PLACES, limit // 4)


class BoundedConnection(LingeringConnection):
    """One connection, which knows what it waits for."""

    __slots__ = ("ended", "is_local", "phase", "since", "wire")

    def __init__(
        self, server: web.Server, *, is_local: bool, ended: Callable[[BoundedConnection], None]
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=IDLE_SECONDS,
            access_log=None,
            max_line_size=LONGEST_FIELD_BYTES,
            max_field_size=LONGEST_FIELD_BYTES,
        )
        self.is_local: Final = is_local
        self.ended: Final = ended
        self.wire: asyncio.Transport | None = None
        self.since = time.monotonic()
        self.phase = ("head", 0)

    @property
    def is_waiting(self) -> bool:
        """Whether no request is in progress: one may come, or has been refused."""
        if self.transport is None:
            return True
        return self._waiter is not None and not self._waiter.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire = cast(asyncio.Transport, transport)
        super().connection_made(transport)

    def socket_closed(self) -> None:
        self.ended(self)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            self.abort()
            return resp, True

    def abort(self) -> None:
        """Close the connection at once; what was not sent is discarded."""
        if self.wire is not None:
            self.wire.abort()

    def is_overdue(self, now: float) -> bool:
        """Whether it has been in one phase for too long."""
        phase = (self._phase(), self._request_count)
        if phase != self.phase:
            self.phase, self.since = phase, now
        limit = _LIMITS.get(phase[0])
        return limit is not None and now - self.since > limit

    def _phase(self) -> str:
        if self.wire is None or self.wire.is_closing():
            return "closing"
        if not self.is_waiting:
            return "request"
        return "head" if self._head_bytes or not self._request_count else "idle"


class BoundedConnections:
    """Accepts connections for an aiohttp server.

    Args:
        sock: the listening socket, owned by the caller.
        server: handles the requests.
        limit: most open connections.
        refused: called with the reason of each connection that is closed early.
        failed: called each time that accepting fails.
    """

    def __init__(
        self,
        sock: socket.socket,
        server: web.Server,
        *,
        limit: int,
        refused: Refused = lambda _: None,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._sock = sock.dup()
        self._server = server
        self._limit: Final = limit
        self._limit_of_others: Final = limit - kept_places(limit)
        self._refused = refused
        self._failed = failed
        self._open: dict[BoundedConnection, None] = {}
        self._loop = asyncio.get_running_loop()
        self._log = log.get_logger()
        self._is_closed = False
        self._sweeping = self._loop.create_task(self._sweep())
        self._loop.add_reader(self._sock, self._accept)

    def close(self) -> None:
        """Accept no more connections; open ones are the server's to close."""
        self._is_closed = True
        self._sweeping.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()

    # --- accepting -----------------------------------------------------------------------

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_PER_TURN):
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            if has_few_files_left(sock):
                sock.close()
                self._refused("descriptors")
            elif self._has_place(is_local := _is_local(peer[0])):
                self._serve(sock, is_local=is_local)
            else:
                sock.close()
                self._refused("limit")

    def _pause(self, error: OSError) -> None:
        """Accept again later: a socket with waiting connections stays readable."""
        self._failed()
        self._log.error("accept_failed", error=str(error))
        self._loop.remove_reader(self._sock)
        self._loop.call_later(_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._sock, self._accept)

    def _serve(self, sock: socket.socket, *, is_local: bool) -> None:
        sock.setblocking(False)
        connection = BoundedConnection(self._server, is_local=is_local, ended=self._ended)
        self._open[connection] = None
        task = self._loop.create_task(self._loop.connect_accepted_socket(lambda: connection, sock))
        task.add_done_callback(lambda done: self._served(done, connection))

    def _served(
        self, done: asyncio.Task[tuple[asyncio.Transport, asyncio.Protocol]], one: BoundedConnection
    ) -> None:
        if done.cancelled() or done.exception() is not None:
            self._ended(one)

    def _ended(self, connection: BoundedConnection) -> None:
        self._open.pop(connection, None)

    def _has_place(self, is_local: bool) -> bool:
        """Whether there is a place, if need be after closing a connection that only waits."""
        others = [one for one in self._open if not one.is_local]
        if not is_local and len(others) >= self._limit_of_others:
            return self._displace(others)
        return len(self._open) < self._limit or self._displace([*others, *self._open])

    def _displace(self, candidates: list[BoundedConnection]) -> bool:
        """Close the oldest candidate without a request; False if every one has a request."""
        for one in candidates:
            if one.is_waiting and one.wire is not None:
                self._ended(one)
                one.abort()
                self._refused("displaced")
                return True
        return False

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = time.monotonic()
            for one in list(self._open):
                if one.is_overdue(now):
                    one.abort()
                    self._refused("timeout")


def _is_local(peer: str) -> bool:
    found = parse(peer)
    return found is not None and found.is_loopback
