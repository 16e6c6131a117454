"""What the server API does to the connections of a user, wherever they are: commands of the control channel.

Each worker does it to its own connections, some at a time, so that a user with ten thousand connections
does not hold the event loop. Without a user (`""`) it is the anonymous connections. A subscription that
a backend makes belongs to the user's sessions, unless it is for one connection only: then it ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import msgspec

from cluster import expiry_clock
from cluster.auth import ChannelOverride, ServerSubscription
from cluster.connection import Action, Send, State, SubscriptionDetails, SubscriptionSource
from cluster.errors import (
    CONNECTION_EXPIRED,
    FORCE_DISCONNECT,
    SERVER_ERROR,
    SERVER_UNSUBSCRIBE,
    ClusterError,
    Disconnect,
)
from cluster.log import get_logger
from cluster.metrics.counters import Counters
from cluster.node.client_protocol import Client
from cluster.node.control import Control
from cluster.node.node import Node
from cluster.node.server_side import ServerSide
from cluster.node.session_channels import ChannelChange, SessionChannels
from cluster.node.subscribe import Subscribed
from cluster.protocol import Position, publication_push
from cluster.sessions import Session
from cluster.turn_budget import TurnBudget

log = get_logger()

#: Connections that are looked at before the event loop gets its turn; fewer of those that are changed.
PER_TURN: Final = 100


class UserCommand(msgspec.Struct, kw_only=True):
    """Which connections: all of a user, or the one with this id, or those of one session."""

    user: str
    client: str = ""
    session: str = ""

    def means(self, client: Client) -> bool:
        """Whether a connection of the user is one of them."""
        if self.client and client.connection.client != self.client:
            return False
        return not self.session or (
            client.session is not None and client.session.id == self.session
        )


class DisconnectUser(UserCommand, kw_only=True):
    """Close the connections, but for those whose ids are in `whitelist`.

    With `issued_until`, only those whose token was issued at this Unix time or before, or does not say when.
    """

    whitelist: list[str] = []
    issued_until: float | None = None
    code: int = FORCE_DISCONNECT.code
    reason: str = FORCE_DISCONNECT.reason


class DisconnectToken(msgspec.Struct, kw_only=True):
    """Close the connections that were made or refreshed with the token of this id (`jti`)."""

    token_id: str
    code: int
    reason: str


class UnsubscribeUser(UserCommand, kw_only=True):
    channel: str


class SubscribeUser(UserCommand, kw_only=True):
    """Subscribe the connections; `recover` says whether from a position.

    With info, an expiry or an override it is for the connections that are open: a session keeps none of these.

    Attributes:
        data, info: JSON text, for the client and for others.
        expire_at: Unix seconds, 0 for never.
        override: options of the channel, by name.
    """

    channel: str
    data: str = ""
    info: str = ""
    expire_at: int = 0
    override: dict[str, bool] = {}
    recover: bool = False
    offset: int = 0
    epoch: str = ""


class RefreshUser(UserCommand, kw_only=True):
    """Set a new expiry, Unix seconds, 0 for never, and info as JSON text; or let the connections expire now."""

    expired: bool = False
    expire_at: int = 0
    info: str = ""


def _grant(command: SubscribeUser) -> ServerSubscription:
    override = ChannelOverride(**command.override) if command.override else None
    return ServerSubscription(command.info.encode(), command.data.encode(), override)


class UserCommands:
    """Runs these commands at one worker.

    Args:
        channel_limit: maximum number of subscriptions of a connection, and of channels of a session.
    """

    def __init__(
        self, node: Node, control: Control, counters: Counters, *, channel_limit: int
    ) -> None:
        self._node = node
        self._counters = counters
        self._channel_limit = channel_limit
        self._session_channels = SessionChannels(
            node.sessions, node.run, counters, channel_limit=channel_limit
        )
        control.on_command("disconnect", DisconnectUser, self.disconnect)
        control.on_command("disconnect_token", DisconnectToken, self.disconnect_token)
        control.on_command("unsubscribe", UnsubscribeUser, self.unsubscribe)
        control.on_command("subscribe", SubscribeUser, self.subscribe)
        control.on_command("refresh", RefreshUser, self.refresh)

    async def _each(
        self,
        command: msgspec.Struct,
        clients: Iterable[Client],
        means: Callable[[Client], bool],
        work: Callable[[Client], Awaitable[None] | None],
    ) -> None:
        """Do something to the connections that are open and meant, with a pause after some of them.

        Where it fails the connection is closed with 3004, so that nothing is half done, and the others follow.
        """
        budget, failed = TurnBudget(), 0
        for number, client in enumerate(clients, 1):
            if client.connection.state is State.CONNECTED and means(client):
                try:
                    working = work(client)
                    if working is not None:
                        await working
                except Exception:
                    failed += 1
                    if failed == 1:
                        log.exception("user_command_failed", command=type(command).__name__)
                    self._failed_at(client)
                await budget.spend()
            if number % PER_TURN == 0:
                await asyncio.sleep(0)

    def _failed_at(self, client: Client) -> None:
        self._counters.errors["internal"] += 1
        with contextlib.suppress(Exception):
            client.perform(client.connection.disconnect(SERVER_ERROR))

    async def _each_of_user(
        self, command: UserCommand, work: Callable[[Client], Awaitable[None] | None]
    ) -> None:
        await self._each(command, self._node.clients.of(command.user), command.means, work)

    async def disconnect(self, command: DisconnectUser) -> None:
        self._node.refreshes.told += 1
        why = Disconnect(command.code, command.reason)
        spared = set(command.whitelist)
        until = command.issued_until

        def disconnect(client: Client) -> None:
            claims = client.connection.claims
            # Without a token there is none to refuse.
            is_other = until is not None and (not claims.has_token or claims.issued_at > until)
            if not is_other and client.connection.client not in spared:
                client.perform(client.connection.disconnect(why))

        await self._each_of_user(command, disconnect)

    async def disconnect_token(self, command: DisconnectToken) -> None:
        self._node.refreshes.told += 1
        why = Disconnect(command.code, command.reason)

        def has_token(client: Client) -> bool:
            return client.connection.claims.token_id == command.token_id

        def disconnect(client: Client) -> None:
            client.perform(client.connection.disconnect(why))

        await self._each(command, self._node.clients, has_token, disconnect)

    async def unsubscribe(self, command: UnsubscribeUser) -> None:
        channel = command.channel
        sessions: dict[str, Session] = {}

        def unsubscribe(client: Client) -> None:
            if client.session is not None:
                sessions[client.session.id] = client.session
            client.perform(client.connection.unsubscribe(channel, SERVER_UNSUBSCRIBE))

        await self._each_of_user(command, unsubscribe)
        await self._keep(sessions, ChannelChange(channel, has_it=False))

    async def subscribe(self, command: SubscribeUser) -> None:
        sessions: dict[str, Session] = {}
        is_kept = not (command.client or command.info or command.expire_at or command.override)
        source = SubscriptionSource.SESSION if is_kept else SubscriptionSource.API

        def subscribe(client: Client) -> Awaitable[None]:
            if client.session is not None and is_kept:
                sessions[client.session.id] = client.session
            return self._subscribe(client, command, source)

        await self._each_of_user(command, subscribe)
        await self._keep(sessions, ChannelChange(command.channel, has_it=True))

    async def _subscribe(
        self, client: Client, command: SubscribeUser, source: SubscriptionSource
    ) -> None:
        channels = client.connection.channels
        if command.channel in channels:
            return
        if len(channels) >= self._channel_limit:
            self._counters.client_error(106)
            return
        channel = command.channel
        positions: dict[str, Position | None] = {}
        if command.recover:
            positions[channel] = Position(command.offset, command.epoch)
        try:
            [subscribed] = await self._node.subscriptions.prepare_server_side(
                (ServerSide(channel, source, _grant(command)),),
                positions,
                client.connection.user,
                client,
                client.connection.codec,
            )
        except Disconnect as why:
            # Mostly it has closed meanwhile, and is told nothing.
            client.perform(client.connection.disconnect(why))
            return
        except ClusterError as error:
            self._counters.errors["store"] += 1
            log.error("server_side_subscribe_failed", reason=str(error))
            return
        try:
            actions = self._added(client, command, subscribed)
            client.perform(actions)
        except BaseException:
            self._node.channels.abort(subscribed.joining.channel, subscribed.joining.start)
            raise
        if not actions:
            self._node.channels.abort(subscribed.joining.channel, subscribed.joining.start)
            return
        self._node.channels.join(subscribed.joining, client, client.write)
        client.watch_expiry()

    def _added(
        self, client: Client, command: SubscribeUser, subscribed: Subscribed
    ) -> list[Action]:
        """What a connection is sent that has got the subscription; nothing if it has it already, or has ended."""
        result = subscribed.result
        details = subscribed.details
        if command.expire_at:
            options = self._node.permissions.options(command.channel)
            expires_at = expiry_clock.from_unix(command.expire_at)
            details = SubscriptionDetails(
                command.info.encode(), expires_at, options.sub_refresh_proxy_enabled
            )
        missed = result.pop("publications", [])
        actions = client.connection.subscribe_added(
            command.channel,
            result,
            is_positioned=subscribed.is_positioned,
            source=subscribed.source,
            details=details,
        )
        # The push has no place for them, unlike a reply.
        later = [publication_push(command.channel, one) for one in missed] if actions else []
        return actions + [Send(one) for one in later]

    async def refresh(self, command: RefreshUser) -> None:
        has_expired = command.expired or expiry_clock.has_passed(command.expire_at)
        expires_at = expiry_clock.from_unix(command.expire_at)

        def refresh(client: Client) -> None:
            if has_expired:
                client.perform(client.connection.disconnect(CONNECTION_EXPIRED))
                return
            if command.info:
                client.connection.info = command.info.encode()
                self._node.info_changed(client)
            client.perform(client.connection.expiry_set(expires_at, expiry_clock.now()))
            client.watch_expiry()

        await self._each_of_user(command, refresh)

    async def _keep(self, sessions: dict[str, Session], change: ChannelChange) -> None:
        """Change sessions, whose other and later connections follow; the next command comes after it."""
        each = list(sessions.values())
        for first in range(0, len(each), PER_TURN):
            self._session_channels.change(each[first : first + PER_TURN], change)
            await asyncio.sleep(0)
