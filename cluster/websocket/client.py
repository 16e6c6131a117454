"""One client after its handshake: passes its messages to the state machine and performs the actions.

After the handshake the socket belongs to this protocol alone, so an idle connection holds no task,
request or response (docs/adr/0006). Replies, pushes, pings and the close frame are all written to the
transport here, in order, and nothing follows the close frame. A client that does not read is closed
with 3008 when more than `client.queue_max_size` bytes are unsent.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine
from typing import Any, Final, Protocol

from cluster import expiry_clock
from cluster.connection import Connection, ExpiryDelays, actions
from cluster.errors import (
    CONNECTION_CLOSED,
    NORMAL,
    SERVER_ERROR,
    SLOW,
    TOO_MANY_REQUESTS_CLOSE,
    ClientError,
    Disconnect,
)
from cluster.log import get_logger, is_debug
from cluster.metrics.counters import Counters
from cluster.node.node import Node
from cluster.node.subscribe import Subscribed
from cluster.protocol import close_frame, native_ping_frame
from cluster.websocket.command_rate import CommandRate
from cluster.websocket.performer import ActionPerformer

log = get_logger()

#: How long after the application could not be asked it is asked again whether a connection may go on.
_AGAIN_SECONDS: Final = 1.0


class ClientOwner(Protocol):
    """What a client needs of the server that accepted it."""

    node: Node
    counters: Counters
    rate: CommandRate
    session_short_lived_seconds: float
    expiry_delays: ExpiryDelays
    expiry_horizon: float

    def closing(self, client: WebSocketClient) -> None:
        """A close frame has been written; the socket must be closed soon."""

    def lost(self, client: WebSocketClient) -> None:
        """The socket has ended without a close frame: call `leave` of the client, now or soon."""

    def left(self, client: WebSocketClient) -> None:
        """The socket has been closed, and the client has left everything."""


class WebSocketClient(ActionPerformer):
    """Implements `node.Client` for one WebSocket.

    Args:
        native_pings: ping with WebSocket ping frames instead of `{}`.

    Attributes:
        address: what the limits per address count it by; "" if they are off.
    """

    __slots__ = (
        "_expiry_timer", "_is_refreshing", "_native_pings", "_owner", "address", "opened_at", "timer_slot",
    )  # fmt: skip

    def __init__(
        self,
        owner: ClientOwner,
        connection: Connection,
        *,
        url_session: str,
        native_pings: bool,
    ) -> None:
        super().__init__(connection, owner.node, owner.counters, owner.rate, url_session)
        self._owner = owner
        self._native_pings = native_pings
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._is_refreshing = False
        self.address = ""
        self.opened_at = 0.0
        self.timer_slot = 0

    def begin(self, transport: asyncio.Transport, message_size_limit: int, queue_max: int) -> None:
        super().begin(transport, message_size_limit, queue_max)
        self.opened_at = time.monotonic()
        self._full_at = self._rate.full_at(0.0, self._rate.slice, self.opened_at)
        self._counters.connections_opened += 1

    @property
    def is_idle(self) -> bool:
        """Whether none of its commands is in progress, and nothing is unsent."""
        transport = self._transport
        return (
            self.connection.is_idle
            and transport is not None
            and not transport.get_write_buffer_size()
        )

    # --- from the socket -------------------------------------------------------------------

    def native_pong(self) -> None:
        if self._native_pings:
            self.connection.awaits_pong = 0

    def fail(self, why: Disconnect) -> None:
        if why is SERVER_ERROR:
            self._counters.errors["internal"] += 1
        self.perform(self.connection.disconnect(why))

    def closed_by_peer(self, code: int) -> None:
        self.connection.disconnect(NORMAL)
        self._leave(NORMAL)
        self.write(close_frame(code if code and 1000 <= code < 5000 else 1000, ""))
        self.end()

    def throttled(self) -> None:
        self._counters.throttled["output"] += 1

    def pause_writing(self) -> None:
        super().pause_writing()
        if not self._is_closing:
            self._node.reads.hold(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._node.reads.resume(self)

    def peer_stalled(self) -> None:
        self._counters.slow_consumers += 1
        self._counters.dropped["slow"] += 1
        self.perform(self.connection.disconnect(SLOW))

    def end(self) -> None:
        if self._transport is not None:
            super().end()
            self._owner.closing(self)

    def end_stream(self) -> None:
        """Half-close the socket: the client has not answered."""
        super().end()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.connection.disconnect(CONNECTION_CLOSED)
        if self._is_closing:
            self._owner.left(self)
        else:
            self._owner.lost(self)

    def leave(self) -> None:
        """Leave everything, after a socket that has ended without a close frame."""
        self._leave(CONNECTION_CLOSED)
        self._owner.left(self)

    # --- performing actions ------------------------------------------------------------------

    def _leave_channel(self, action: actions.Leave) -> None:
        self._node.channels.leave(action.channel, self)

    def _close(self, action: actions.Close) -> None:
        if self._is_closing:
            return
        why = action.why
        self._leave(why)
        self.write(close_frame(why.code, why.reason))
        if why == TOO_MANY_REQUESTS_CLOSE:
            self.stop_reading()
        else:
            # The client's answer to the close frame must be read.
            self.resume()
        self._owner.closing(self)

    def _leave(self, why: Disconnect) -> None:
        """Remove the client from everything but its socket."""
        self._is_closing = True
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
            self._expiry_timer = None
        self._counters.closed(why.code)
        lived = time.monotonic() - self.opened_at
        session = self.session
        may_end = (
            (why.is_client_fault or why in (NORMAL, CONNECTION_CLOSED, SLOW))
            and session is not None
            and not session.is_resumed
            and lived < self._owner.session_short_lived_seconds
        )
        application = self._node.application
        if application is not None and application.handles_disconnecting and session is not None:
            self._run(application.disconnecting(self, session, why))
        self._node.disconnected(self, may_end_session=may_end)
        if is_debug():
            log.debug(
                "connection_closed",
                client=self.connection.client,
                code=why.code,
                reason=why.reason,
                commands=self.connection.commands,
                seconds=round(lived, 3),
            )

    # --- commands that wait for the store ----------------------------------------------------

    def _subscribe(self, action: actions.Subscribe, frames: list[bytes]) -> None:
        """Subscribe, at once if the store is not needed; then `frames` are written with the reply."""
        since = time.monotonic()
        outcome: Subscribed | Coroutine[Any, Any, Subscribed] | ClientError | Disconnect
        try:
            outcome = self._node.subscriptions.prepare(action.request, self, self.connection)
        except (ClientError, Disconnect) as why:
            outcome = why
        except Exception:
            log.exception("subscribe_failed", client=self.connection.client)
            outcome = self._failed()
        if isinstance(outcome, Subscribed):
            self._subscribed(action, since, outcome, frames)
        elif isinstance(outcome, (ClientError, Disconnect)):
            if frames:
                self._write_all(frames)
            self._subscribe_refused(action, since, outcome)
        else:
            self._run(self._do_subscribe(action, since, outcome))
            return
        if self.connection.has_waiting:
            # Not here: each waiting command may be a subscribe too, and would nest one call deeper.
            self.schedule_turn()

    async def _do_subscribe(
        self, action: actions.Subscribe, since: float, work: Coroutine[Any, Any, Subscribed]
    ) -> None:
        outcome = await self._outcome("subscribe_failed", work)
        if isinstance(outcome, Subscribed):
            self._subscribed(action, since, outcome, [])
        else:
            self._subscribe_refused(action, since, outcome)
        self._resume()

    def _subscribed(
        self, action: actions.Subscribe, since: float, outcome: Subscribed, frames: list[bytes]
    ) -> None:
        self._counters.command_duration["subscribe"].observe(time.monotonic() - since)
        replies = self.connection.subscribed(
            action.id,
            outcome.channel,
            outcome.result,
            is_positioned=outcome.is_positioned,
            details=outcome.details,
        )
        if not replies:
            self._abort(outcome)
            return
        try:
            frames += map(self._frame, replies)
            self._write_all(frames)
        except BaseException:
            self._abort(outcome)
            raise
        self._node.channels.join(outcome.joining, self, self.write)
        if outcome.details is not None:
            self.watch_expiry()

    def _subscribe_refused(
        self, action: actions.Subscribe, since: float, why: ClientError | Disconnect
    ) -> None:
        self._counters.command_duration["subscribe"].observe(time.monotonic() - since)
        self.perform(self.connection.subscribe_refused(action.id, action.request.channel, why))

    def _resume(self) -> None:
        """Handle the commands that have waited for a subscribe, unless they have their turn later."""
        if self._is_turn_scheduled:
            return
        self.perform(self.connection.resume())
        self._count()

    def _history(self, action: actions.History) -> None:
        history = self._node.commands.history(self, action.request, self.connection)
        self._run(self._do_call(action.id, "history", history))

    def _presence(self, action: actions.PresenceRead) -> None:
        presence, connection = self._node.presence, self.connection
        read: Coroutine[Any, Any, dict[str, Any]]
        if action.method == "presence_stats":
            read = presence.stats_for(connection, action.channel)
        else:
            read = presence.read_for(connection, self, action.channel)
        self._run(self._do_call(action.id, action.method, read))

    def _rpc(self, action: actions.Rpc) -> None:
        since = time.monotonic()
        try:
            result = self._node.commands.rpc(self, action.method, action.data)
        except ClientError as why:
            answers = self.connection.answered(action.id, why)
        else:
            if not isinstance(result, dict):
                self._run(self._do_call(action.id, "rpc", result))
                return
            answers = self.connection.replied(action.id, "rpc", result)
        self._counters.command_duration["rpc"].observe(time.monotonic() - since)
        self.perform(answers)

    def _refresh(self, action: actions.Refresh) -> None:
        refresh = self._node.refreshes.connection(self, action.token)
        self._run(self._do_call(action.id, "refresh", refresh))

    def _sub_refresh(self, action: actions.SubRefresh) -> None:
        refresh = self._node.refreshes.subscription(self, action.channel, action.token)
        self._run(self._do_call(action.id, "sub_refresh", refresh))

    def _message(self, action: actions.Message) -> None:
        application = self._node.application
        assert application is not None, "the connection takes messages"
        # The handle is made now: the client may leave before its message is handled.
        self._run(self._do_message(application.message(application.handle(self), action.data)))

    async def _do_message(self, handling: Coroutine[Any, Any, None]) -> None:
        try:
            await handling
        except Disconnect as why:
            self.perform(self.connection.disconnect(why))
        except ClientError as error:
            # Nothing answers a message.
            self._counters.client_error(error.code)
            log.debug("message_refused", client=self.connection.client, code=error.code)

    async def _do_call(
        self, number: int, method: str, call: Coroutine[Any, Any, dict[str, Any]]
    ) -> None:
        since = time.monotonic()
        outcome = await self._outcome(f"{method}_failed", call)
        self._counters.command_duration[method].observe(time.monotonic() - since)
        if isinstance(outcome, dict):
            self.perform(self.connection.replied(number, method, outcome))
            if "expires" in outcome:
                self.watch_expiry()
        else:
            self.perform(self.connection.answered(number, outcome))

    # --- timers ------------------------------------------------------------------------------

    def ping(self, now: float) -> None:
        """Send a ping, or end what has expired."""
        self._end_expired(now)
        if self._is_closing:
            return
        self.watch_expiry()
        if self.connection.ping_due():
            self.write(
                native_ping_frame() if self._native_pings else self.connection.codec.ping_frame
            )

    def watch_expiry(self) -> None:
        """Look again when the connection or a subscription expires, if that is before the next ping."""
        due = self.connection.next_expiry(self._owner.expiry_delays)
        if due == math.inf or self._is_refreshing:
            return
        wait = due - expiry_clock.now()
        if wait <= 0 and (
            self.connection.server_refresh_due(expiry_clock.now()) or self._due_channels()
        ):
            # It was asked for, in vain.
            wait = _AGAIN_SECONDS
        if wait > self._owner.expiry_horizon or self._is_closing:
            return
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
        loop = asyncio.get_running_loop()
        self._expiry_timer = loop.call_later(max(0.0, wait) + 0.001, self._expire)

    def _expire(self) -> None:
        self._expiry_timer = None
        if not self._is_closing:
            self._end_expired(expiry_clock.now())
            self.watch_expiry()

    def _due_channels(self) -> list[str]:
        """The channels whose subscriptions the application is to be asked about."""
        if not self._node.refreshes.asks_for_subscriptions:
            return []
        return self.connection.server_sub_refreshes_due(expiry_clock.now())

    def _end_expired(self, now: float) -> None:
        is_due = self.connection.server_refresh_due(now)
        if not is_due:
            self.perform(self.connection.expiry_due(now, self._owner.expiry_delays))
        channels = self._due_channels()
        if (is_due or channels) and not self._is_refreshing:
            self._is_refreshing = True
            refreshes = [self._sub_refresh_by_server(channel) for channel in channels]
            if is_due:
                refreshes.append(self._refresh_by_server())
            self._run(self._refresh_all(refreshes))

    async def _refresh_all(self, refreshes: list[Coroutine[Any, Any, None]]) -> None:
        try:
            await asyncio.gather(*refreshes)
        finally:
            self._is_refreshing = False
        self.watch_expiry()

    async def _refresh_by_server(self) -> None:
        delay = self._owner.expiry_delays.connection
        try:
            why = await self._node.refreshes.by_server(self, delay)
        except Disconnect as refused:
            why = refused
        if why is not None:
            self.perform(self.connection.disconnect(why))

    async def _sub_refresh_by_server(self, channel: str) -> None:
        delay = self._owner.expiry_delays.subscription
        try:
            ends = await self._node.refreshes.subscription_by_server(self, channel, delay)
        except Disconnect as refused:
            ends = self.connection.disconnect(refused)
        self.perform(ends)

    def check_pong(self) -> None:
        """Close the connection if its pong is missing, and not unread behind commands that wait for answers."""
        if not self._is_congested:
            self.perform(self.connection.pong_due())

    def check_connected(self) -> None:
        """Close the connection if it has not connected."""
        self.perform(self.connection.stale_due())


WebSocketClient._performers = {
    actions.Close: WebSocketClient._close,
    actions.Connect: WebSocketClient._connect,
    actions.Refresh: WebSocketClient._refresh,
    actions.SubRefresh: WebSocketClient._sub_refresh,
    actions.Publish: WebSocketClient._publish,
    actions.Leave: WebSocketClient._leave_channel,
    actions.History: WebSocketClient._history,
    actions.PresenceRead: WebSocketClient._presence,
    actions.Rpc: WebSocketClient._rpc,
    actions.Message: WebSocketClient._message,
}
