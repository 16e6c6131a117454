"""One worker's node: connects clients, keeps their sessions, and owns what they use.

Errors: what a client may know is raised as `ClientError` or `Disconnect`; an unavailable store is
counted, logged and becomes error 100 (temporary), so that the SDKs try again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, NamedTuple, cast

import orjson

from cluster import __version__
from cluster.application import Application, ApplicationCallbacks
from cluster.application.client_handles import HandledClient
from cluster.auth import Authenticator, Claims
from cluster.broker import Broker, BrokerListener
from cluster.config import Config
from cluster.connection import SubscriptionSource
from cluster.errors import (
    CONNECTION_LIMIT,
    INTERNAL,
    SERVER_UNSUBSCRIBE,
    UNSUBSCRIBE_INSUFFICIENT_STATE,
    StoreError,
)
from cluster.hub import Hub
from cluster.log import get_logger
from cluster.metrics.counters import Counters
from cluster.node.channels import Channels
from cluster.node.client_protocol import Client, ConnectionsOfUsers
from cluster.node.commands import Commands, RpcHandler, store_failed
from cluster.node.counted_sessions import attach_counted
from cluster.node.live_subscriptions import add_server_side
from cluster.node.members import members_of
from cluster.node.permissions import ChannelPermissions
from cluster.node.presence import Presence
from cluster.node.reads import StreamReads
from cluster.node.refreshes import Refreshes, RevokedTokens, abandon
from cluster.node.server_reads import ServerReads
from cluster.node.server_side import ServerSide, ServerSideChannels
from cluster.node.subscribe import Subscribed, SubscriptionBuilder
from cluster.node.subscription_tokens import SubscriptionTokens, add_expiry
from cluster.presence import PresenceStore
from cluster.protocol import ConnectRequest, wanted_session
from cluster.sessions import Session, SessionListener, Sessions
from cluster.shared_timeout import SharedTimeout

log = get_logger()


class ConnectedClients:
    """Clients whose connect has succeeded, until they end.

    Attributes:
        count: how many there are.
    """

    def __init__(self) -> None:
        # Most users have one connection, and a set costs 216 bytes.
        self._by_user: dict[str, Client | set[Client]] = {}
        self.count = 0

    def add(self, client: Client) -> None:
        user = client.connection.user
        found = self._by_user.get(user)
        if found is None:
            self._by_user[user] = client
        elif isinstance(found, set):
            found.add(client)
        else:
            self._by_user[user] = {found, client}
        self.count += 1

    def remove(self, client: Client) -> None:
        """Remove a client, if it is there."""
        user = client.connection.user
        found = self._by_user.get(user)
        if isinstance(found, set):
            if client not in found:
                return
            found.discard(client)
            if not found:
                del self._by_user[user]
        elif found is client:
            del self._by_user[user]
        else:
            return
        self.count -= 1

    def of(self, user: str) -> list[Client]:
        """The connections of a user, "" for the anonymous ones."""
        found = self._by_user.get(user)
        if found is None:
            return []
        return list(found) if isinstance(found, set) else [found]

    def __iter__(self) -> Iterator[Client]:
        """All of them, as they are now."""
        for user in list(self._by_user):
            yield from self.of(user)

    @property
    def users(self) -> int:
        """How many users are connected; all anonymous connections count as one."""
        return len(self._by_user)


class Connected(NamedTuple):
    """A successful connect: its reply, the user's claims, the session, the server-side subscriptions."""

    result: dict[str, Any]
    claims: Claims
    session: Session
    subscribed: list[Subscribed]


class Node:
    """One worker's operations.

    Args:
        open_broker: makes the broker for the listener of its publications.
        open_sessions: makes the sessions for the listener of their changes.
        users: counts the connections of each user; None for no limit.
        revocations: what is revoked and blocked; None for nothing.
        rpc_handlers: by method; without any, every call is answered with 108.
        presence_store: who is in which channel; None for a node without presence, joins and leaves.
        application: the application that this worker runs.

    Attributes:
        members: the members of this worker's channels; None without presence.
        presence: reads who is in a channel.
        application: its callbacks; None without one.
    """

    def __init__(
        self,
        config: Config,
        counters: Counters,
        *,
        open_broker: Callable[[BrokerListener], Broker],
        open_sessions: Callable[[SessionListener], Sessions],
        users: ConnectionsOfUsers | None = None,
        revocations: RevokedTokens | None = None,
        rpc_handlers: Mapping[str, RpcHandler] | None = None,
        presence_store: PresenceStore | None = None,
        application: Application | None = None,
    ) -> None:
        self._config = config
        self._counters = counters
        self._connects = asyncio.Semaphore(config.client.connect_concurrency)
        self._connects_waiting = 0
        self._connect_timeout = SharedTimeout(config.broker.timeout)
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        permissions = ChannelPermissions(config, counters)
        self.authenticator = Authenticator(config, counters)
        self.refreshes = Refreshes(
            self.authenticator,
            revocations,
            counters,
            timeout_seconds=config.broker.timeout,
            on_info_changed=self.info_changed,
        )
        self.permissions = permissions
        self.clients = ConnectedClients()
        self.hub = Hub(counters)
        self.reads = StreamReads(config.broker.read_concurrency, counters)
        self.members = members_of(presence_store, config.client, counters)
        self.presence = Presence(
            config, permissions, presence_store, self.members, self.reads, counters
        )
        self.channels = Channels(
            self.hub,
            permissions,
            self.reads,
            counters,
            open_broker=open_broker,
            timeout_seconds=config.broker.timeout,
            check_seconds=config.client.channel_position_check_delay,
            on_insufficient=self._insufficient,
            members=self.members,
        )
        self.sessions = open_sessions(self)
        self._users = users if users is not None and users.is_on else None
        self._revocations = revocations
        self._server_side = ServerSideChannels(config, permissions, counters)
        self.subscriptions = SubscriptionBuilder(
            config,
            permissions,
            self.channels,
            counters,
            SubscriptionTokens(self.authenticator),
        )
        broker, reads = self.channels.broker, self.reads
        self.commands = Commands(config, permissions, broker, reads, counters, rpc_handlers or {})
        self.server_reads = ServerReads(config, permissions, broker, reads, counters)
        self.application = self._callbacks_of(application)
        #: Set by the server API, which has the control channel: tells all workers of a connection.
        self.tell_of: Callable[[Client], Coroutine[Any, Any, None]] | None = None

    def _callbacks_of(self, application: Application | None) -> ApplicationCallbacks | None:
        if application is None:
            return None
        callbacks = ApplicationCallbacks(
            application,
            self._config,
            self._counters,
            sessions=self.sessions,
            broker=self.channels.broker,
            history_policy=self.permissions.history,
            publish=self.commands.publish_from_server,
            presence=self.presence,
        )
        self.commands.application = self.subscriptions.application = callbacks
        self.refreshes.application = callbacks
        return callbacks

    async def flush(self) -> None:
        """Wait until every publish and every change of presence has been answered."""
        await self.commands.flush()
        if self.members is not None:
            await self.members.flush()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside the event loop's other work and keep it alive."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def is_overrun(self) -> bool:
        """Whether so many connects are in progress that new connections should go elsewhere."""
        return self._connects_waiting >= 4 * self._config.client.connect_concurrency

    # --- connect -----------------------------------------------------------------------------

    async def connect(self, client: Client, request: ConnectRequest, url_session: str) -> Connected:
        """Authenticate a client, attach its session and prepare its server-side subscriptions.

        Raises:
            ClientError: 109 for an expired token, 102 or 107 for a channel in it, 107 for headers that cannot
                be passed on, 100 when the store is unavailable.
            Disconnect: 3500 or 3501 for a bad or missing token, 3501 for an unknown namespace in `subs`,
                3504 for a user with too many connections, 3505 for too many channels, 3507 for one that is
                blocked.
        """
        told = self.refreshes.told
        data: dict[str, Any] = {}
        if self.application is not None:
            self.application.keep_headers(client, request)
        if self.application is not None and self.application.handles_connecting:
            claims, data = await self.application.connecting(client, request, self.authenticator)
        else:
            claims = await self.authenticator.connection(request.token)
        granted: dict[str, ServerSide] = {}
        if claims.channels or claims.subs or self._server_side.has_personal:
            granted = self._server_side.of_claims(claims)
        self._connects_waiting += 1
        try:
            with self._connect_timeout():
                async with self._connects:
                    session = await self._admit(
                        claims, wanted_session(request.data) or url_session or None, client
                    )
        except (StoreError, TimeoutError) as error:
            store_failed(self._counters, "connect_failed", error)
            raise INTERNAL.fresh() from None
        finally:
            self._connects_waiting -= 1
        subscribed: list[Subscribed] = []
        try:
            if granted or session.channels or request.subs:
                wanted = self._server_side.all(granted, session.channels, request.subs, claims.user)
                subscribed = await self.subscriptions.prepare_server_side(
                    wanted, request.subs, claims.user, client, client.connection.codec
                )
            result = self._connect_result(client, claims, session, subscribed, data)
        except BaseException:
            for one in subscribed:
                self.channels.abort(one.joining.channel, one.joining.start)
            self._leave(session, client, may_end=not session.is_resumed)
            raise
        if told != self.refreshes.told:
            self.run(self.refreshes.look_again(client, claims))
        return Connected(result, claims, session, subscribed)

    def _admit(
        self, claims: Claims, wanted: str | None, client: Client
    ) -> Coroutine[Any, Any, Session]:
        """Attach a session, unless the token is revoked or its user blocked; all is sent together."""
        revocations = self._revocations
        answer = revocations.look_up(claims) if revocations is not None else None
        if answer is None:
            return self._enter(claims.user, wanted, client)
        return self._admit_unless_revoked(answer, claims, wanted, client)

    async def _admit_unless_revoked(
        self, answer: asyncio.Future[str], claims: Claims, wanted: str | None, client: Client
    ) -> Session:
        try:
            session = await self._enter(claims.user, wanted, client)
        except BaseException:
            abandon(answer)
            raise
        try:
            reason = await answer
        except BaseException:
            self._leave(session, client, may_end=not session.is_resumed)
            raise
        if reason:
            self._leave(session, client, may_end=not session.is_resumed)
            raise self.authenticator.refused(reason)
        return session

    def _enter(self, user: str, wanted: str | None, client: Client) -> Coroutine[Any, Any, Session]:
        """Attach a session, and count the connection for its user; both commands are sent together."""
        if self._users is None or not user:
            return self.sessions.attach(user, wanted, client)
        return attach_counted(
            self.sessions, self._users, self._counters, user=user, wanted=wanted, client=client
        )

    def _leave(self, session: Session, client: Client, *, may_end: bool) -> None:
        self.sessions.detach(session, client, may_end=may_end)
        if self._users is not None and session.user:
            self._users.leave(session.user, client.connection.client)

    def _connect_result(
        self,
        client: Client,
        claims: Claims,
        session: Session,
        subscribed: list[Subscribed],
        data: dict[str, Any],
    ) -> dict[str, Any]:
        result: dict[str, Any] = {
            "client": client.connection.client,
            "version": __version__,
            "data": {
                **data,
                "session": {
                    "id": session.id,
                    "resumed": session.is_resumed,
                    "messages": session.messages,
                    "state": orjson.Fragment(session.state),
                },
            },
            "ping": max(1, round(self._config.client.ping_interval)),
            "pong": True,
        }
        if claims.expires_at and not claims.is_refreshed_by_server:
            add_expiry(result, claims.expires_at)
        if subscribed:
            result["subs"] = {one.channel: one.result for one in subscribed}
        return result

    def _insufficient(self, subscriber: object, channel: str) -> None:
        client: Client = subscriber  # type: ignore[assignment]
        client.perform(
            client.connection.insufficient_state(channel, UNSUBSCRIBE_INSUFFICIENT_STATE)
        )

    # --- the connections of a user -------------------------------------------------------------

    def entered(self, client: Client) -> None:
        """Bring a client up to date that has connected and joined its server-side channels."""
        if client.session is not None:
            self.clients.add(client)
        self.follow_session(client)
        user = client.connection.user
        if self._server_side.closes_others and user:
            for other in self.hub.subscribers(self._server_side.personal(user)):
                self._close_other(other, client)
            if self.tell_of is not None:
                self.run(self.tell_of(client))

    def _close_other(self, subscriber: object, client: Client) -> None:
        other: Client = subscriber  # type: ignore[assignment]
        if other is not client and other.connection.user == client.connection.user:
            other.perform(other.connection.disconnect(CONNECTION_LIMIT))

    def info_changed(self, client: HandledClient, channel: str = "") -> None:
        """Show a client's new info in the presence of its channels, or that of one subscription in its channel."""
        if self.members is not None:
            channels = client.connection.channels
            names = [channel] if channel else channels
            infos = {name: channels[name].info for name in names if name in channels}
            self.members.update(cast(Client, client), infos)

    def disconnected(self, client: Client, *, may_end_session: bool) -> None:
        """Remove a client: its subscriptions here, its reads, its hold on the session in the store."""
        self.reads.forget(client)
        self.clients.remove(client)
        for channel in client.connection.channels:
            self.channels.leave(channel, client)
        client.connection.channels.clear()
        if client.session is not None:
            session, client.session = client.session, None
            self._leave(session, client, may_end=may_end_session)

    # --- sessions -----------------------------------------------------------------------------

    def session_changed(self, session: Session) -> None:
        """Send a changed session to its local clients (see `SessionListener`)."""
        state = orjson.Fragment(session.state)
        data = {"session": {"state": state, "version": session.version}}
        if self.application is not None:
            self.application.session_changed(session)
        for holder in list(session.holders):
            client: Client = holder  # type: ignore[assignment]
            client.perform(client.connection.message(data))
            self.follow_session(client)

    def follow_session(self, client: Client) -> None:
        """Bring the subscriptions that a client has of its session in line with its channels."""
        session = client.session
        if session is None:
            return
        has = client.connection.channels
        source = SubscriptionSource.SESSION
        for channel in [name for name, one in has.items() if one.source is source]:
            if channel not in session.channels:
                client.perform(client.connection.unsubscribe(channel, SERVER_UNSUBSCRIBE))
        for channel in session.channels:
            if channel not in has and self._server_side.is_possible(channel):
                self.run(add_server_side(self.subscriptions, self.channels, client, channel))
