"""The protocol state machine of one connection: no socket, no clock, no Redis.

Use: pass in the client's messages (`receive`) and the results of the node (`connected`,
`subscribed`, `published`, …). Each call returns actions, which the owner does in order. A request
(`Connect`, `Subscribe`, …) is answered once, by calling the method in the past tense.

Order: commands of one connection are handled in order. During a connect all other commands wait.
Subscribes to different channels run concurrently, and other commands wait for them. Publishes,
reads of history and presence, rpc calls and refreshes do not delay the commands that follow.

States: new -> connecting -> connected -> closed. A rejected connect leads to `refused`, where any
further command closes the connection.
"""

from __future__ import annotations

import math
from typing import Any, Final

from cluster.auth import Claims
from cluster.codec import JSON, Codec
from cluster.connection.actions import (
    CLOSED,
    CONNECTED,
    NEW,
    REFUSED,
    Action,
    ExpiryDelays,
    History,
    Leave,
    Message,
    PresenceRead,
    Refresh,
    Rpc,
    Send,
    SubRefresh,
    Subscribe,
    Subscription,
    SubscriptionDetails,
    SubscriptionSource,
)
from cluster.connection.intake import COMMANDS_PER_TURN, CommandIntake
from cluster.connection.pushes import (
    message_push,
    refresh_push,
    subscribe_push,
    unsubscribe_push,
)
from cluster.errors import (
    ALREADY_SUBSCRIBED,
    BAD_REQUEST,
    BAD_REQUEST_CLOSE,
    CONNECTION_EXPIRED,
    INSUFFICIENT_STATE,
    LIMIT_EXCEEDED,
    NO_PONG,
    NOT_AVAILABLE,
    NOT_AVAILABLE_CLOSE,
    PERMISSION_DENIED,
    STALE,
    SUBSCRIPTION_EXPIRED,
    TOO_MANY_REQUESTS,
    UNSUBSCRIBE_EXPIRED,
    ClientError,
    Disconnect,
    Unsubscribe,
)
from cluster.metrics.counters import Counters
from cluster.protocol import (
    Command,
    channel_request,
    data_text,
    history_request,
    reply,
    subscribe_request,
)

_NO_DETAILS: Final = SubscriptionDetails(b"", 0)


class Connection(CommandIntake):
    """The protocol state of one connection.

    Args:
        client: the connection's id, a UUID.
        channel_limit: maximum number of subscriptions.
        counters: counts commands and faults of the client.
        codec: what the client speaks.
    """

    __slots__ = ("_channel_limit", "client")

    def __init__(
        self, client: str, *, channel_limit: int, counters: Counters, codec: Codec = JSON
    ) -> None:
        super().__init__(counters, codec)
        self.client = client
        self._channel_limit = channel_limit

    # --- commands --------------------------------------------------------------------------

    def _subscribe(self, command: Command, actions: list[Action]) -> None:
        request = subscribe_request(command.params)
        if request.channel in self.channels:
            raise ALREADY_SUBSCRIBED.fresh()
        if self._subscribing is None:
            self._subscribing = set()
        if len(self.channels) + len(self._subscribing) >= self._channel_limit:
            raise LIMIT_EXCEEDED.fresh()
        self._subscribing.add(request.channel)
        actions.append(Subscribe(command.id, request))

    def _unsubscribe(self, command: Command, actions: list[Action]) -> None:
        channel = channel_request(command.params)
        subscription = self.channels.get(channel)
        if subscription is not None and not subscription.is_server_side:
            del self.channels[channel]
            actions.append(Leave(channel))
        actions.append(Send(reply(command.id, "unsubscribe")))

    def _history(self, command: Command, actions: list[Action]) -> None:
        request = history_request(command.params)
        self._pending += 1
        actions.append(History(command.id, request))

    def _presence(self, command: Command, actions: list[Action]) -> None:
        channel = channel_request(command.params)
        self._pending += 1
        actions.append(PresenceRead(command.id, command.method, channel))

    def _rpc(self, command: Command, actions: list[Action]) -> None:
        data = data_text(command.params) or b"null"
        self._pending += 1
        actions.append(Rpc(command.id, command.params.method or "", data))

    def _send(self, command: Command, actions: list[Action]) -> None:
        raise NOT_AVAILABLE_CLOSE.fresh()

    def _take_message(self, command: Command, actions: list[Action]) -> None:
        try:
            data = data_text(command.params)
        except ClientError as error:
            # A `send` has no reply.
            self._counters.client_error(error.code)
        else:
            actions.append(Message(data or b"null"))

    def _refresh(self, command: Command, actions: list[Action]) -> None:
        token = command.params.token
        # What the server refreshes goes on only as long as the application, or a backend, says.
        if not token or self.claims.is_refreshed_by_server:
            raise BAD_REQUEST_CLOSE.fresh()
        self._pending += 1
        actions.append(Refresh(command.id, token))

    def _not_available(self, command: Command, actions: list[Action]) -> None:
        raise NOT_AVAILABLE.fresh()

    def _sub_refresh(self, command: Command, actions: list[Action]) -> None:
        channel, token = channel_request(command.params), command.params.token
        subscription = self.channels.get(channel)
        if subscription is None:
            raise PERMISSION_DENIED.fresh()
        if subscription.details is not None and subscription.details.is_refreshed_by_server:
            raise BAD_REQUEST_CLOSE.fresh()
        if not token:
            raise BAD_REQUEST.fresh()
        self._pending += 1
        actions.append(SubRefresh(command.id, channel, token))

    # --- from the node ---------------------------------------------------------------------

    def subscribed(
        self,
        number: int,
        channel: str,
        result: dict[str, Any],
        *,
        is_positioned: bool,
        details: SubscriptionDetails | None = None,
    ) -> list[Send]:
        """A subscribe has succeeded: the owner sends the reply, then joins the channel.

        Returns no action if the connection has ended meanwhile; the owner must not join then.
        """
        if self.state is not CONNECTED:
            return []
        self._end_subscribe(channel)
        self.channels[channel] = Subscription(is_positioned, is_server_side=False, details=details)
        return [Send(reply(number, "subscribe", result))]

    def subscribe_refused(
        self, number: int, channel: str, why: ClientError | Disconnect
    ) -> list[Action]:
        """A subscribe has failed."""
        self._end_subscribe(channel)
        return self.answered(number, why, counts=False)

    def next_turn(self, budget: int = COMMANDS_PER_TURN) -> list[Action]:
        """Renew the budget, and handle the commands that waited for it."""
        self.budget = budget
        return self.resume() if self.has_waiting else []

    def too_many_requests(self) -> list[Action]:
        """Refuse the command that has waited longest: commands come faster than is allowed."""
        actions: list[Action] = []
        try:
            waiting = self._waiting_decoded() if self.state is CONNECTED else None
        except Disconnect as why:
            self._close(why, actions)
            return actions
        if waiting:
            command = waiting.popleft()
            self.commands += 1
            self._counters.commands[command.method] += 1
            self._counters.messages_in += 1
            # A `send` has no id, and gets no reply.
            if command.id:
                self._refuse(command.id, TOO_MANY_REQUESTS, actions)
        return actions

    def resume(self) -> list[Action]:
        """Handle the commands that waited for a subscribe or a turn; call it after joining the channel."""
        actions: list[Action] = []
        if self.state is not CLOSED:
            self._handle_waiting(actions)
        return actions

    def _end_subscribe(self, channel: str) -> None:
        if self._subscribing is not None:
            self._subscribing.discard(channel)
            if not self._subscribing:
                self._subscribing = None

    def replied(self, number: int, method: str, result: dict[str, Any]) -> list[Action]:
        """A read, rpc call or refresh has succeeded."""
        self._pending -= 1
        if self.state is not CONNECTED:
            return []
        return [Send(reply(number, method, result))]

    def answered(
        self, number: int, why: ClientError | Disconnect, *, counts: bool = True
    ) -> list[Action]:
        """A command has failed."""
        actions: list[Action] = []
        if counts:
            self._pending -= 1
        if self.state is not CONNECTED:
            return actions
        if isinstance(why, Disconnect):
            self._close(why, actions)
        else:
            self._refuse(number, why, actions)
        return actions

    # --- from the server -------------------------------------------------------------------

    def subscribe_added(
        self,
        channel: str,
        result: dict[str, Any],
        *,
        is_positioned: bool,
        source: SubscriptionSource = SubscriptionSource.SESSION,
        details: SubscriptionDetails | None = None,
    ) -> list[Action]:
        """The server has subscribed the connection to a channel.

        Returns no action if the connection has the subscription, or its own subscribe is in progress.
        """
        if self.state is not CONNECTED or channel in self.channels:
            return []
        if self._subscribing and channel in self._subscribing:
            return []
        self.channels[channel] = Subscription(
            is_positioned, is_server_side=True, details=details, source=source
        )
        return [Send(subscribe_push(channel, result))]

    def unsubscribe(self, channel: str, why: Unsubscribe) -> list[Action]:
        """End a subscription from the server's side, if there is one."""
        if self.state is not CONNECTED or channel not in self.channels:
            return []
        del self.channels[channel]
        return [Leave(channel), Send(unsubscribe_push(channel, why))]

    def insufficient_state(self, channel: str, why: Unsubscribe) -> list[Action]:
        """Report lost publications of a channel: the client must subscribe or connect again."""
        subscription = self.channels.get(channel)
        if subscription is None or not subscription.is_positioned:
            return []
        if subscription.is_server_side:
            return self.disconnect(INSUFFICIENT_STATE)
        return self.unsubscribe(channel, why)

    def message(self, data: Any) -> list[Action]:
        """Send a message of the server."""
        return [Send(message_push(data))] if self.state is CONNECTED else []

    def expiry_set(self, expires_at: int, now: float) -> list[Action]:
        """The server has given the connection another expiry, 0 for never."""
        if self.state is not CONNECTED:
            return []
        self.expires_at = expires_at
        return [Send(refresh_push(max(1, int(expires_at - now)) if expires_at else 0))]

    def disconnect(self, why: Disconnect) -> list[Action]:
        """Close the connection from the server's side."""
        actions: list[Action] = []
        self._close(why, actions)
        return actions

    def ping_due(self) -> bool:
        """Return whether to send a ping now; if so, a pong is awaited from now on."""
        if self.state is not CONNECTED:
            return False
        self.awaits_pong += 1
        return True

    def pong_due(self) -> list[Action]:
        """Close the connection if the pong is missing at its deadline."""
        return self.disconnect(NO_PONG) if self.awaits_pong else []

    def stale_due(self) -> list[Action]:
        """Close the connection if no connect has begun at its deadline; one in progress may continue."""
        if self.state in (NEW, REFUSED):
            return self.disconnect(STALE)
        return []

    def expiry_due(self, now: float, delays: ExpiryDelays) -> list[Action]:
        """Close the connection if it has expired and was not refreshed; end such subscriptions."""
        if self.expires_at and now > self.expires_at + delays.connection:
            self._counters.refresh_failures["connection"] += 1
            return self.disconnect(CONNECTION_EXPIRED)
        actions: list[Action] = []
        for channel, one in list(self.channels.items()):
            details = one.details
            if details is None or not 0 < details.expires_at < now - delays.subscription:
                continue
            if not details.is_refreshed_by_server:
                actions += self.subscription_expired(channel)
        return actions

    def subscription_expired(self, channel: str) -> list[Action]:
        """End a subscription that was not refreshed: the connection with it if the server has made it."""
        self._counters.refresh_failures["subscription"] += 1
        if self.channels[channel].is_server_side:
            return self.disconnect(SUBSCRIPTION_EXPIRED)
        return self.unsubscribe(channel, UNSUBSCRIBE_EXPIRED)

    def next_expiry(self, delays: ExpiryDelays) -> float:
        """When `expiry_due` may have something to do, by the clock of expiries; infinity for never."""
        times = [
            details.expires_at + (0.0 if details.is_refreshed_by_server else delays.subscription)
            for one in self.channels.values()
            if (details := one.details) is not None and details.expires_at
        ]
        if self.expires_at:
            by_client = not self.claims.is_refreshed_by_server
            times.append(self.expires_at + (delays.connection if by_client else 0.0))
        return min(times, default=math.inf)

    def server_refresh_due(self, now: float) -> bool:
        """Whether the application is to be asked now if the connection may go on."""
        return (
            self.claims.is_refreshed_by_server
            and self.state is CONNECTED
            and 0 < self.expires_at <= now
        )

    def server_sub_refreshes_due(self, now: float) -> list[str]:
        """The channels of which the application is to be asked now if the subscription may go on."""
        if self.state is not CONNECTED:
            return []
        return [
            channel
            for channel, one in self.channels.items()
            if one.details is not None
            and one.details.is_refreshed_by_server
            and 0 < one.details.expires_at <= now
        ]

    # --- refreshes -------------------------------------------------------------------------

    def refreshed(self, claims: Claims, expires_at: int) -> None:
        """The connection has got a new token: its expiry, and its info if the token has any."""
        self.claims, self.expires_at = claims, expires_at
        self.info = claims.info or self.info

    def sub_refreshed(self, channel: str, info: bytes, expires_at: int) -> bool:
        """A subscription has got a new expiry, and info; returns False if it has ended meanwhile."""
        subscription = self.channels.get(channel)
        if subscription is None:
            return False
        details = (subscription.details or _NO_DETAILS)._replace(expires_at=expires_at)
        if info:
            details = details._replace(info=info)
        kept = details if details.info or expires_at else None
        self.channels[channel] = subscription._replace(details=kept)
        return True


_HANDLERS = {
    "connect": Connection._connect,
    "ping": Connection._not_available,
    "subscribe": Connection._subscribe,
    "unsubscribe": Connection._unsubscribe,
    "publish": Connection._publish,
    "presence": Connection._presence,
    "presence_stats": Connection._presence,
    "history": Connection._history,
    "rpc": Connection._rpc,
    "send": Connection._send,
    "refresh": Connection._refresh,
    "sub_refresh": Connection._sub_refresh,
}
Connection._handlers = _HANDLERS


class MessagingConnection(Connection):
    """A connection whose messages (`send`) an application takes."""

    __slots__ = ()

    _handlers = {**_HANDLERS, "send": Connection._take_message}  # noqa: RUF012 - never changed
