"""Lets clients in: admission before any work, the handshake, one clock for all, and the drain.

Refusals come at the upgrade, as HTTP, because that is what nginx sees: 503 makes it go on to the
next worker, 403 and 400 go back to the client. Each is counted by its reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import random
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

from aiohttp import hdrs
from aiohttp.http import RawRequestMessage

from cluster.config import Config
from cluster.connection import Connection, State
from cluster.errors import SHUTDOWN
from cluster.log import get_logger
from cluster.metrics.counters import Counters
from cluster.node.node import Node
from cluster.websocket import handshake
from cluster.websocket.client import WebSocketClient
from cluster.websocket.timing_wheel import TimingWheel

log = get_logger()

#: How long a peer may take to answer a close frame or to take what was written before it.
CLOSE_TIMEOUT_SECONDS = 1.0

_AWAY = HTTPStatus.SERVICE_UNAVAILABLE
_SWEEP_SECONDS = 0.25
_PACE_SECONDS = 0.01


class TokenBucket:
    """At most `rate` per second, with a burst of one second's worth; 0 is no limit."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens = rate
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Take one token if there is one."""
        if not self._rate:
            return True
        self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Pending(Protocol):
    """A connection that may become a WebSocket."""

    def end(self) -> None:
        """End it, unless it has become one."""


class Refusal(NamedTuple):
    """Why a request does not become a WebSocket: HTTP status, metric's reason, words."""

    status: HTTPStatus
    reason: str
    text: str


class WebSocketServer:
    """The WebSocket server of one worker.

    Args:
        is_ready: whether new clients may come in; if not, the reason is "not_ready".
    """

    def __init__(
        self, config: Config, node: Node, counters: Counters, *, is_ready: Callable[[], bool]
    ) -> None:
        self.node = node
        self.counters = counters
        self.session_short_lived_seconds = config.session.short_lived
        self.clients: set[WebSocketClient] = set()
        self._config = config
        self._is_ready = is_ready
        self._is_draining = False
        self._bucket = TokenBucket(config.client.connection_rate_limit)
        self._timing_wheel: TimingWheel[WebSocketClient] = TimingWheel(
            turn_seconds=config.client.ping_interval, echo_seconds=config.client.pong_timeout
        )
        self._fresh: deque[tuple[float, WebSocketClient]] = deque()
        self._closing: deque[tuple[float, WebSocketClient]] = deque()
        self._pending: deque[tuple[float, Pending]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    # --- coming in ---------------------------------------------------------------------------

    def refusal(self, message: RawRequestMessage, *, is_upgraded: bool) -> Refusal | None:
        """Why a request does not become a WebSocket here and now, counted; None if it does."""
        found = self._refuse(message, is_upgraded=is_upgraded)
        if found is not None:
            self.counters.rejected[found.reason] += 1
        return found

    def enter(self, transport: asyncio.Transport, message: RawRequestMessage, tail: bytes) -> None:
        """Turn a request into a client.

        Args:
            tail: what came behind the request.
        """
        query = message.url.query
        connection = Connection(
            str(uuid.uuid4()),
            channel_limit=self._config.client.channel_limit,
            counters=self.counters,
        )
        client = WebSocketClient(
            self,
            connection,
            url_session=query.get("session", ""),
            native_pings=query.get("cf_ws_frame_ping_pong") == "true",
        )
        self._take_over(transport, client)
        transport.write(handshake.accepted(message))
        if tail:
            client.data_received(tail)

    def _take_over(self, transport: asyncio.Transport, client: WebSocketClient) -> None:
        self.clients.add(client)
        self._empty.clear()
        options = self._config.client
        self._fresh.append((time.monotonic() + options.stale_close_delay, client))
        transport.set_protocol(client)
        client.begin(transport, self._config.websocket.message_size_limit, options.queue_max_size)

    def _refuse(self, message: RawRequestMessage, *, is_upgraded: bool) -> Refusal | None:
        options = self._config.client
        if self._is_draining:
            return Refusal(_AWAY, "draining", "this worker is shutting down")
        if not self._is_ready():
            return Refusal(_AWAY, "not_ready", "this worker cannot reach its broker")
        if options.connection_limit and len(self.clients) >= options.connection_limit:
            return Refusal(_AWAY, "connection_limit", "this worker is full")
        if self.node.is_overrun:
            return Refusal(_AWAY, "connect_concurrency", "too many connects are in progress")
        if not self._bucket.take(time.monotonic()):
            return Refusal(_AWAY, "rate_limit", "too many new connections")
        origin = message.headers.get(hdrs.ORIGIN)
        if origin is not None and not _is_allowed(origin, options.allowed_origins):
            text = "this origin is not in client.allowed_origins"
            return Refusal(HTTPStatus.FORBIDDEN, "origin", text)
        fault = handshake.fault(message, is_upgraded=is_upgraded)
        return Refusal(fault.status, "bad_handshake", fault.text) if fault is not None else None

    def bad_http(self) -> None:
        """A request was so malformed that nobody looked what it wants."""
        self.counters.rejected["bad_handshake"] += 1

    def watch(self, pending: Pending) -> None:
        """End a connection that has not become a WebSocket in time."""
        deadline = time.monotonic() + self._config.client.stale_close_delay
        self._pending.append((deadline, pending))

    # --- Host --------------------------------------------------------------------------------

    def entered(self, client: WebSocketClient) -> int:
        return self._timing_wheel.add(client)

    def closing(self, client: WebSocketClient) -> None:
        self._closing.append((time.monotonic() + CLOSE_TIMEOUT_SECONDS, client))

    def left(self, client: WebSocketClient) -> None:
        self.clients.discard(client)
        if client.timer_slot is not None:
            self._timing_wheel.remove(client, client.timer_slot)
        if not self.clients:
            self._empty.set()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- time --------------------------------------------------------------------------------

    async def turn(self) -> None:
        """Send pings and look for missing pongs until cancelled."""
        while True:
            await asyncio.sleep(self._timing_wheel.tick_seconds)
            due, echoes = self._timing_wheel.tick()
            now = time.time()
            for client in echoes:
                client.pong()
            for client in due:
                client.ping(now)

    async def sweep(self) -> None:
        """End what has not connected, not closed or not upgraded in time, until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = time.monotonic()
            while self._fresh and self._fresh[0][0] <= now:
                client = self._fresh.popleft()[1]
                client.stale()
                if client.connection.state is State.CONNECTING:
                    self._fresh.append((now + self._config.client.stale_close_delay, client))
            while self._closing and self._closing[0][0] <= now:
                self._closing.popleft()[1].abort()
            while self._pending and self._pending[0][0] <= now:
                self._pending.popleft()[1].end()

    # --- going -------------------------------------------------------------------------------

    def refuse_all(self) -> None:
        """From now on every upgrade is answered with 503."""
        self._is_draining = True

    async def drain(self, window_seconds: float, stop: asyncio.Event) -> None:
        """Close every client with 3001, spread over the window, and wait for their sockets.

        The SDKs come back within half a second of their close, so the stagger must come from
        here. Bound it from outside; `stop` ends the pacing at once.
        """
        self.refuse_all()
        clients = list(self.clients)
        random.shuffle(clients)
        began = time.monotonic()
        for index, client in enumerate(clients):
            due = began + window_seconds * (index + random.random()) / len(clients)
            wait = due - time.monotonic()
            if wait > _PACE_SECONDS:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), wait)
            client.perform(client.connection.disconnect(SHUTDOWN))
        for client in list(self.clients):
            # Who came in while the window was running.
            client.perform(client.connection.disconnect(SHUTDOWN))
        if self.clients:
            await self._empty.wait()

    def abort_all(self) -> None:
        """End every socket that is left."""
        for client in list(self.clients):
            client.abort()


def _is_allowed(origin: str, patterns: tuple[str, ...]) -> bool:
    origin = origin.lower()
    return any(
        pattern == "*" or fnmatch.fnmatchcase(origin, pattern.lower()) for pattern in patterns
    )
