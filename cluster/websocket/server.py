"""The WebSocket server of a worker: admission, the clients' timers, and the drain.

A client is refused at the upgrade, over HTTP, because that is what nginx sees: after a 503 nginx
tries the next worker, and 403 and 400 are passed on to the client. Refusals are counted by reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import os
import random
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

from aiohttp import hdrs

from cluster import expiry_clock
from cluster.addresses import peer_address, trusted_networks
from cluster.codec import JSON
from cluster.config import Config
from cluster.connection import Connection, ExpiryDelays, MessagingConnection, State
from cluster.errors import SHUTDOWN
from cluster.log import get_logger
from cluster.metrics.counters import Counters
from cluster.node.node import Node
from cluster.protobuf import PROTOBUF
from cluster.turn_budget import TurnBudget
from cluster.websocket import handshake
from cluster.websocket.address_limits import AddressLimits, Refusal
from cluster.websocket.client import WebSocketClient
from cluster.websocket.command_rate import CommandRate
from cluster.websocket.deadlines import Deadlines
from cluster.websocket.file_reserve import RESERVED_FILES, PausableListener, soft_limit
from cluster.websocket.handshake import HandshakeRequest
from cluster.websocket.lost_clients import LostClients
from cluster.websocket.timing_wheel import TimingWheel

log = get_logger()

#: How long a client may take to answer a close frame; then nothing more is sent to it.
CLOSE_TIMEOUT_SECONDS = 1.0

#: How long its socket then stays open and what it sends is thrown away. A proxy that is late may find bytes of
#: the client before it finds the close frame: if it cannot pass them on, it drops the close frame.
LINGER_SECONDS = 2.5

#: So many sockets linger at a time while clients are accepted, and so much may be unsent to each.
MOST_LINGERING = 256
MOST_UNSENT_BYTES = 65_536

#: How long a drain waits for sockets after its last close frame. What is still open then has had the close
#: frame and the end of the stream for more than a second: a proxy that is late for longer, or a client that
#: never answers, and a client that never answers must not keep a worker from its exit.
DRAIN_LINGER_SECONDS = 2.5

_UNAVAILABLE = HTTPStatus.SERVICE_UNAVAILABLE
_SWEEP_SECONDS = 0.25

# The two upper bits of this digit are 10, the others random.
_VARIANT = {f"{digit:x}": "89ab"[digit & 3] for digit in range(16)}
_PACE_SECONDS = 0.01
_LAST_SECONDS = 0.1
_QUIET_LOOKS = 3


class TokenBucket:
    """Allows `rate` events per second, with a burst of one second's worth; 0 allows any number."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens = rate
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Take a token; returns False if there is none."""
        if not self._rate:
            return True
        self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Pending(Protocol):
    """An accepted connection that has not sent a whole request yet."""

    @property
    def is_open(self) -> bool:
        """Whether its request may still arrive."""

    def expire(self) -> None:
        """Close the connection unless its request has arrived."""


class WebSocketServer:
    """The WebSocket server of one worker.

    Args:
        is_ready: whether the worker can serve new clients; if not, the reason is "not_ready".

    Attributes:
        listener: what accepts the connections, if file descriptors may run out; set by the worker.
    """

    def __init__(
        self, config: Config, node: Node, counters: Counters, *, is_ready: Callable[[], bool]
    ) -> None:
        self.node = node
        self.counters = counters
        self.session_short_lived_seconds = config.session.short_lived
        self.expiry_delays = ExpiryDelays(
            config.client.expired_close_delay, config.client.expired_sub_close_delay
        )
        # An expiry before the next ping has a timer of its own; a ping may be a tick late.
        self.expiry_horizon = 1.5 * config.client.ping_interval
        self.rate = CommandRate(config.client.command_rate_limit, config.client.command_burst)
        self._addresses = AddressLimits(
            config.client, trusted_networks(config.server.trusted_proxies)
        )
        # In the order in which they came.
        self.clients: dict[WebSocketClient, None] = {}
        #: Since the start, with those that were no WebSocket.
        self.accepted_connections = 0
        self._connection_type: type[Connection] = Connection
        self._header_names: tuple[str, ...] = ()
        if node.application is not None:
            node.application.clients = self.clients
            self._header_names = node.application.header_names
            if node.application.handles_messages:
                self._connection_type = MessagingConnection
        self.listener: PausableListener | None = None
        self._config = config
        self._is_ready = is_ready
        self._is_draining = False
        self._bucket = TokenBucket(config.client.connection_rate_limit)
        self._timing_wheel: TimingWheel[WebSocketClient] = TimingWheel(
            turn_seconds=config.client.ping_interval, check_seconds=config.client.pong_timeout
        )
        stale_seconds = config.client.stale_close_delay
        self._fresh: Deadlines[WebSocketClient] = Deadlines(stale_seconds)
        self._closing: Deadlines[WebSocketClient] = Deadlines(CLOSE_TIMEOUT_SECONDS)
        self._lingering: Deadlines[WebSocketClient] = Deadlines(LINGER_SECONDS)
        self._pending: Deadlines[Pending] = Deadlines(stale_seconds)
        self._lost = LostClients()
        self._empty = asyncio.Event()
        self._drained_at = 0.0
        self._file_limit = soft_limit()

    # --- accepting ---------------------------------------------------------------------------

    def refusal(
        self,
        message: HandshakeRequest,
        transport: asyncio.Transport | None,
        *,
        is_upgraded: bool,
        is_admitted: bool = True,
    ) -> Refusal | None:
        """Return why a handshake must be refused now, and count it; None if it may be accepted.

        Args:
            is_admitted: what `watch` has returned for the connection.
        """
        if is_admitted:
            found = self._refuse(message, transport, is_upgraded=is_upgraded)
        else:
            text = "this worker has no file descriptors left"
            found = Refusal(_UNAVAILABLE, "file_limit", text)
        if found is not None:
            self.counters.rejected[found.reason] += 1
        return found

    def accept(self, transport: asyncio.Transport, message: HandshakeRequest, tail: bytes) -> None:
        """Answer a handshake and serve the client behind it from now on.

        Args:
            tail: bytes that arrived after the request.
        """
        query = message.url.query
        connection = self._connection_type(
            _new_client_id(),
            channel_limit=self._config.client.channel_limit,
            counters=self.counters,
            codec=PROTOBUF if handshake.wants_protobuf(message) else JSON,
        )
        client = WebSocketClient(
            self,
            connection,
            url_session=query.get("session", ""),
            native_pings=query.get("cf_ws_frame_ping_pong") == "true",
        )
        if self._addresses.is_on:
            client.address = self._address(transport, message)
            self._addresses.opened(client.address)
        if self._header_names:
            headers = message.headers
            client.headers = {
                name: ", ".join(headers.getall(name))
                for name in self._header_names
                if name in headers
            }
        self._add(transport, client)
        transport.write(handshake.accepted(message))
        if tail:
            client.data_received(tail)

    def _address(self, transport: asyncio.Transport, message: HandshakeRequest) -> str:
        """What a client's address is counted by."""
        peer = peer_address(transport.get_extra_info("peername"))
        forwarded_for = message.headers.getall(hdrs.X_FORWARDED_FOR, ())
        return self._addresses.key(peer, forwarded_for)

    def _add(self, transport: asyncio.Transport, client: WebSocketClient) -> None:
        self.clients[client] = None
        client.timer_slot = self._timing_wheel.add(client)
        self._empty.clear()
        options = self._config.client
        self._fresh.add(client)
        transport.set_protocol(client)
        client.begin(transport, self._config.websocket.message_size_limit, options.queue_max_size)

    def _refuse(
        self,
        message: HandshakeRequest,
        transport: asyncio.Transport | None,
        *,
        is_upgraded: bool,
    ) -> Refusal | None:
        options = self._config.client
        if self._is_draining:
            return Refusal(_UNAVAILABLE, "draining", "this worker is shutting down")
        if not self._is_ready():
            return Refusal(_UNAVAILABLE, "not_ready", "this worker cannot reach its broker")
        if options.connection_limit and len(self.clients) >= options.connection_limit:
            return Refusal(_UNAVAILABLE, "connection_limit", "this worker is full")
        if self.node.is_overrun:
            return Refusal(_UNAVAILABLE, "connect_concurrency", "too many connects are in progress")
        if self._addresses.is_on and transport is not None:
            key = self._address(transport, message)
            refusal = self._addresses.refusal(key, time.monotonic())
            if refusal is not None:
                return refusal
        if not self._bucket.take(time.monotonic()):
            return Refusal(_UNAVAILABLE, "rate_limit", "too many new connections")
        origin = message.headers.get(hdrs.ORIGIN)
        if origin is not None and not _is_allowed(origin, options.allowed_origins):
            text = "this origin is not in client.allowed_origins"
            return Refusal(HTTPStatus.FORBIDDEN, "origin", text)
        fault = handshake.fault(message, is_upgraded=is_upgraded)
        return Refusal(fault.status, "bad_handshake", fault.text) if fault is not None else None

    def bad_http(self) -> None:
        """Count a request that could not be parsed."""
        self.counters.rejected["bad_handshake"] += 1

    def watch(self, pending: Pending, transport: asyncio.Transport, others: int) -> bool:
        """Close a connection whose request does not arrive in time.

        Args:
            others: how many connections are open that are no WebSockets and do not wait for a request.

        Returns:
            Whether there is a file descriptor for it; if not, a handshake must be refused.
        """
        self._pending.add(pending)
        self.accepted_connections += 1
        # More files than are open: connections, others that may have ended, and all twice over.
        most_files = 2 * (len(self.clients) + len(self._pending) + others) + 4 * RESERVED_FILES
        # Asking for the descriptor costs memory per connection, so only where it matters.
        if self.listener is None or most_files < self._file_limit:
            return True
        return self.listener.admits(transport)

    def ended(self, pending: Pending) -> None:
        """Forget a connection that `watch` was told of: it has been closed, or is a client's now."""
        self._pending.discard(pending)

    # --- from the clients ----------------------------------------------------------------------

    def closing(self, client: WebSocketClient) -> None:
        self._closing.add(client)

    def lost(self, client: WebSocketClient) -> None:
        self._lost.add(client)

    def left(self, client: WebSocketClient) -> None:
        self.clients.pop(client, None)
        self._fresh.discard(client)
        self._closing.discard(client)
        self._lingering.discard(client)
        if client.address:
            self._addresses.closed(client.address)
        self._timing_wheel.remove(client, client.timer_slot)
        if not self.clients:
            self._empty.set()

    # --- timers --------------------------------------------------------------------------------

    async def ping_clients(self) -> None:
        """Send pings and close clients whose pongs are missing, until cancelled."""
        budget = TurnBudget()
        while True:
            await asyncio.sleep(self._timing_wheel.tick_seconds)
            to_ping, to_check = self._timing_wheel.tick()
            now = expiry_clock.now()
            for client in to_check:
                client.check_pong()
                await budget.spend()
            for client in to_ping:
                client.ping(now)
                await budget.spend()

    async def close_overdue(self) -> None:
        """Close what has not connected, not closed or not sent its request in time, until cancelled."""
        budget = TurnBudget()
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            # It can be changed while the worker runs (prlimit).
            self._file_limit = soft_limit()
            for client in self._fresh.take_due():
                client.check_connected()
                if client.connection.state is State.CONNECTING:
                    self._fresh.add(client)
                await budget.spend()
            for client in self._closing.take_due():
                self._linger(client)
                await budget.spend()
            for client in self._lingering.take_due():
                client.abort()
            for pending in self._pending.take_due():
                pending.expire()
            if self.listener is not None:
                await self.listener.resume()

    def _linger(self, client: WebSocketClient) -> None:
        """End the stream to a client that has not answered; abort its socket in a while, or now.

        Those that never answer are bounded in number and memory; in a drain there are no new ones.
        """
        if client not in self.clients:
            # It has ended in a turn of this sweep.
            return
        if client.unsent_bytes > MOST_UNSENT_BYTES:
            client.abort()
            return
        client.end_stream()
        self._lingering.add(client)
        if len(self._lingering) > MOST_LINGERING and not self._is_draining:
            first = next(iter(self._lingering))
            self._lingering.discard(first)
            first.abort()

    # --- shutdown ------------------------------------------------------------------------------

    async def settle_pending(self, within_seconds: float) -> None:
        """Wait until the requests of all accepted connections have arrived, or the time is up.

        A proxy has accepted a request for them already, and cannot send it to another worker.
        """
        # The loop may still hold connections and requests of its last turns: one look is too early.
        deadline, quiet_looks = time.monotonic() + within_seconds, 0
        while quiet_looks < _QUIET_LOOKS and time.monotonic() < deadline:
            await asyncio.sleep(_PACE_SECONDS)
            is_quiet = not any(one.is_open for one in self._pending)
            quiet_looks = quiet_looks + 1 if is_quiet else 0

    def refuse_all(self) -> None:
        """Answer every handshake with 503 from now on."""
        self._is_draining = True

    async def drain(self, window_seconds: float, stop: asyncio.Event) -> None:
        """Close every client with 3001, spread over the window, and wait a while for their sockets.

        The SDKs reconnect within half a second of their close, so the closes must be spread here. A drain
        that is late does not catch up in one turn of the loop. The caller bounds the time; `stop` ends the
        spreading at once.
        """
        self.refuse_all()
        clients = list(self.clients)
        random.shuffle(clients)
        began = time.monotonic()
        budget = TurnBudget()
        for index, client in enumerate(clients):
            due = began + window_seconds * (index + random.random()) / len(clients)
            wait = due - time.monotonic()
            if wait > _PACE_SECONDS and not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), wait)
            self._close(client)
            await budget.spend()
        # Clients that were accepted while the window was running.
        await self._close_all()
        await self._until_empty(self._drained_at + DRAIN_LINGER_SECONDS - time.monotonic())

    def _close(self, client: WebSocketClient) -> None:
        if closes := client.connection.disconnect(SHUTDOWN):
            client.perform(closes)
            self._drained_at = time.monotonic()
        else:
            self._lost.leave_now(client)

    async def _close_all(self) -> None:
        budget = TurnBudget()
        for client in list(self.clients):
            self._close(client)
            await budget.spend()

    async def _until_empty(self, within_seconds: float) -> None:
        if self.clients:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), max(0.0, within_seconds))

    async def end(self) -> None:
        """Close with 3001 the clients that a drain which was cut short has not reached; abort every socket.

        To take a client out of everything costs the same with a close frame as without.
        """
        self.refuse_all()
        await self._close_all()
        # The transports write in the next turn.
        await self._until_empty(_LAST_SECONDS)
        self.abort_all()

    def abort_all(self) -> None:
        """Abort every socket that is left."""
        for client in list(self.clients):
            client.abort()


def _new_client_id() -> str:
    """A random UUID of version 4 (RFC 9562, section 5.4), as `uuid.uuid4` makes one in twice the time."""
    digits = os.urandom(16).hex()
    variant = _VARIANT[digits[16]]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _is_allowed(origin: str, patterns: tuple[str, ...]) -> bool:
    origin = origin.lower()
    # `[` begins an IPv6 address, no set of characters.
    literal = (pattern.lower().replace("[", "[[]") for pattern in patterns)
    return any(fnmatch.fnmatchcase(origin, pattern) for pattern in literal)
