"""The operations of clients on one worker.

Errors: what a client may know is raised as `ClientError` or `Disconnect`; a store that is away is
counted, logged and becomes error 100 (temporary), so that the SDKs try again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import orjson

from cluster import __version__
from cluster.auth import Claims, authenticate
from cluster.broker import Broker, HistoryPolicy
from cluster.config import ChannelOptions, Config
from cluster.connection import Action, Connection
from cluster.errors import (
    INSUFFICIENT_STATE,
    INTERNAL,
    INVALID_TOKEN,
    SERVER_UNSUBSCRIBE,
    UNRECOVERABLE_POSITION,
    UNSUBSCRIBE_INSUFFICIENT_STATE,
    ClusterError,
    StoreError,
)
from cluster.hub import Hub
from cluster.log import get_logger
from cluster.metrics.counters import Counters
from cluster.node.channels import Channels, Joining
from cluster.node.commands import Commands, RpcHandler, store_failed
from cluster.node.permissions import ChannelPermissions
from cluster.protocol import (
    ConnectRequest,
    Position,
    Publication,
    SubscribeRequest,
    publications_json,
)
from cluster.sessions import Session, Sessions

log = get_logger()


class Client(Protocol):
    """What a node needs of whoever carries a connection."""

    connection: Connection
    session: Session | None

    def write(self, data: bytes) -> None:
        """Write whole frames; never raises."""

    def perform(self, actions: list[Action]) -> None:
        """Carry out what the connection asks for."""


class Subscribed(NamedTuple):
    """A subscribe that has worked: its reply, and the joiner to be joined after it."""

    channel: str
    result: dict[str, Any]
    joining: Joining
    is_positioned: bool


class SubscribePlan(NamedTuple):
    """What a subscribe asks for, as far as its channel allows it."""

    policy: HistoryPolicy
    is_positioned: bool
    is_recoverable: bool
    recover_from: Position | None


class Connected(NamedTuple):
    """A connect that has worked: its reply, who it is, and its server-side subscriptions."""

    result: dict[str, Any]
    claims: Claims
    session: Session
    subscribed: list[Subscribed]


class Node:
    """One worker's operations.

    Args:
        rpc_handlers: by method; none at all answers every call with 108.
    """

    def __init__(
        self,
        config: Config,
        counters: Counters,
        *,
        rpc_handlers: Mapping[str, RpcHandler] | None = None,
    ) -> None:
        self._config = config
        self._counters = counters
        self._rules = ChannelPermissions(config)
        self._connects = asyncio.Semaphore(config.client.connect_concurrency)
        self._connects_waiting = 0
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions: Sessions | None = None
        self.hub = Hub(counters)
        self.channels = Channels(
            self.hub,
            self._rules,
            counters,
            timeout_seconds=config.broker.timeout,
            check_seconds=config.client.channel_position_check_delay,
            on_insufficient=self._insufficient,
        )
        self.calls = Commands(config, self._rules, self.channels, counters, rpc_handlers or {})

    def start(self, broker: Broker, sessions: Sessions) -> None:
        """Say where publications and sessions live, before the first connection."""
        self.channels.start(broker)
        self._sessions = sessions

    @property
    def sessions(self) -> Sessions:
        assert self._sessions is not None, "start() comes first"
        return self._sessions

    @property
    def is_overrun(self) -> bool:
        """Whether so many connects are in progress that new connections should go elsewhere."""
        return self._connects_waiting >= 4 * self._config.client.connect_concurrency

    # --- connect -----------------------------------------------------------------------------

    async def connect(self, client: Client, request: ConnectRequest, url_session: str) -> Connected:
        """Let a client in: who it is, its session, its server-side subscriptions.

        Raises:
            ClientError: 109 for an expired token, 100 when the store is away.
            Disconnect: 3500 or 3501 for a bad or missing token.
        """
        claims = authenticate(request.token, self._config, time.time())
        self._connects_waiting += 1
        try:
            async with asyncio.timeout(self._config.broker.timeout), self._connects:
                session = await self.sessions.attach(
                    claims.user, _wanted_session(request.data) or url_session or None, client
                )
        except (StoreError, TimeoutError) as error:
            store_failed(self._counters, "connect_failed", error)
            raise INTERNAL.fresh() from None
        finally:
            self._connects_waiting -= 1
        try:
            subscribed = await self._subscribe_server_side(session.channels, request.subs)
        except BaseException:
            self.sessions.detach(session, client, may_end=not session.is_resumed)
            raise
        return Connected(
            self._connect_result(client, claims, session, subscribed), claims, session, subscribed
        )

    def _connect_result(
        self, client: Client, claims: Claims, session: Session, subscribed: list[Subscribed]
    ) -> dict[str, Any]:
        result: dict[str, Any] = {
            "client": client.connection.client,
            "version": __version__,
            "data": {
                "session": {
                    "id": session.id,
                    "resumed": session.is_resumed,
                    "messages": session.messages,
                    "state": orjson.Fragment(session.state),
                }
            },
            "ping": max(1, round(self._config.client.ping_interval)),
            "pong": True,
        }
        if claims.expires_at:
            result["expires"] = True
            result["ttl"] = max(1, int(claims.expires_at - time.time()))
        if subscribed:
            result["subs"] = {one.channel: one.result for one in subscribed}
        return result

    async def _subscribe_server_side(
        self, channels: tuple[str, ...], recover_from: dict[str, Position]
    ) -> list[Subscribed]:
        done: list[Subscribed] = []
        try:
            for channel in channels:
                position = recover_from.get(channel)
                done.append(
                    await self._subscribe(
                        SubscribeRequest(
                            channel, "", position is not None, position or Position(0, ""),
                            True, True, False,
                        ),
                        self._rules.options(channel),
                    )
                )  # fmt: skip
        except BaseException:
            for one in done:
                self.channels.abort(one.joining.channel)
            raise
        return done

    def refresh(self, client: Client, token: str) -> dict[str, Any]:
        """Prolong a connection that expires.

        Raises:
            ClientError: 109 for an expired token.
            Disconnect: 3500 for a bad token or another user's.
        """
        claims = authenticate(token, self._config, time.time())
        if claims.user != client.connection.user:
            raise INVALID_TOKEN.fresh()
        client.connection.expires_at = claims.expires_at
        result: dict[str, Any] = {"client": client.connection.client, "version": __version__}
        if claims.expires_at:
            result["expires"] = True
            result["ttl"] = max(1, int(claims.expires_at - time.time()))
        return result

    # --- subscribe ---------------------------------------------------------------------------

    def subscribe_now(self, request: SubscribeRequest) -> Subscribed | None:
        """Prepare a subscription that needs nothing of the store: no task, no wait.

        Returns:
            What `subscribe` returns, or None: then `subscribe` is needed.

        Raises:
            ClientError: as `subscribe` does.
        """
        options = self._rules.options(request.channel)
        self._rules.allow(request.channel)
        wish = self._wish(request, options)
        joining = self.channels.begin_now(request.channel, wish.policy, wish.recover_from)
        return self._subscribed(request, wish, joining) if joining is not None else None

    async def subscribe(self, request: SubscribeRequest) -> Subscribed:
        """Prepare a subscription: `join` or `abort` follows, with nothing awaited between.

        Raises:
            ClientError: 102, 103, 107 by the channel's rules; 112 when recovery is impossible and
                the client wants to know; 100 when the store is away.
        """
        options = self._rules.options(request.channel)
        self._rules.allow(request.channel)
        return await self._subscribe(request, options)

    async def _subscribe(self, request: SubscribeRequest, options: ChannelOptions) -> Subscribed:
        wish = self._wish(request, options)
        limit = self._config.client.recovery_max_publication_limit
        joining = await self.channels.begin(request.channel, wish.policy, wish.recover_from, limit)
        return self._subscribed(request, wish, joining)

    def _wish(self, request: SubscribeRequest, options: ChannelOptions) -> SubscribePlan:
        policy = self._rules.history(request.channel)
        may_ask = self._config.client.insecure
        is_recoverable = bool(policy.size) and (
            options.force_recovery or (request.recoverable and (options.allow_recovery or may_ask))
        )
        is_positioned = bool(policy.size) and (
            is_recoverable
            or options.force_positioning
            or (request.positioned and (options.allow_positioning or may_ask))
        )
        recovers = request.recover and is_recoverable
        return SubscribePlan(
            policy, is_positioned, is_recoverable, request.position if recovers else None
        )

    def _subscribed(
        self, request: SubscribeRequest, wish: SubscribePlan, joining: Joining
    ) -> Subscribed:
        result: dict[str, Any] = {}
        if wish.is_positioned and joining.read is not None:
            result = {"positioned": True, "epoch": joining.read.top.epoch}
            if wish.is_recoverable:
                result["recoverable"] = True
            offset = joining.read.top.offset
            if wish.recover_from is not None:
                result["was_recovering"] = True
                if self._recover(request, joining, result):
                    offset = request.position.offset
                elif request.rejects_unrecovered:
                    self.channels.abort(joining.channel)
                    raise UNRECOVERABLE_POSITION.fresh()
            if offset:
                result["offset"] = offset
        elif request.recover:
            result = {"was_recovering": True}
        return Subscribed(request.channel, result, joining, wish.is_positioned)

    def _recover(self, request: SubscribeRequest, joining: Joining, result: dict[str, Any]) -> bool:
        assert joining.read is not None
        top, publications = joining.read
        position = request.position
        is_same_epoch = not position.epoch or position.epoch == top.epoch
        if publications:
            is_whole = (
                publications[0].offset == position.offset + 1
                and publications[-1].offset == top.offset
            )
        else:
            is_whole = top.offset == position.offset
        # A reply that fills the client's queue would have it closed as slow, again and again.
        size = sum(len(publication.body) for publication in publications)
        fits = size <= self._config.client.queue_max_size // 2
        recovered = is_same_epoch and is_whole and fits
        self._counters.recoveries["recovered" if recovered else "unrecovered"] += 1
        if recovered:
            result["recovered"] = True
            if publications:
                result["publications"] = publications_json(publications)
                self._counters.messages_out += len(publications)
        return recovered

    def join(self, subscribed: Subscribed, client: Client) -> None:
        """Make the client a subscriber, right after its reply has been written."""
        self.channels.join(subscribed.joining, client, client.write)

    def abort(self, subscribed: Subscribed) -> None:
        """The client has gone before it could be joined."""
        self.channels.abort(subscribed.joining.channel)

    def leave(self, client: Client, channel: str) -> None:
        """Take a client out of a channel."""
        self.channels.leave(channel, client)

    def _insufficient(self, subscriber: object, channel: str) -> None:
        client: Client = subscriber  # type: ignore[assignment]
        client.perform(
            client.connection.insufficient_state(channel, UNSUBSCRIBE_INSUFFICIENT_STATE)
        )

    # --- the end of a connection ---------------------------------------------------------------

    def disconnected(self, client: Client, *, may_end_session: bool) -> None:
        """Forget a client: its subscriptions now, its session in the store."""
        for channel in client.connection.channels:
            self.channels.leave(channel, client)
        client.connection.channels.clear()
        if client.session is not None:
            session, client.session = client.session, None
            self.sessions.detach(session, client, may_end=may_end_session)

    # --- what the broker and the sessions bring --------------------------------------------------

    def publications(self, channel: str, publications: list[Publication]) -> None:
        """See `BrokerListener`."""
        self.channels.publications(channel, publications, time.time() * 1000)

    def resumed(self, channel: str) -> None:
        """See `BrokerListener`."""
        self.channels.resumed(channel)

    def session_changed(self, session: Session) -> None:
        """See `SessionListener`: tell every local holder."""
        state = orjson.Fragment(session.state)
        data = {"session": {"state": state, "version": session.version}}
        for holder in list(session.holders):
            client: Client = holder  # type: ignore[assignment]
            client.perform(client.connection.message(data))
            self.follow_session(client)

    async def update_session(
        self,
        session_id: str,
        *,
        state: Any = ...,
        channels: tuple[str, ...] | None = None,
        expected_version: int | None = None,
    ) -> int:
        """Change a session wherever it is held; see `Sessions.update` for what it raises."""
        return await self.sessions.update(
            session_id, state=state, channels=channels, expected_version=expected_version
        )

    def follow_session(self, client: Client) -> None:
        """Bring a client's server-side subscriptions in line with its session's channels."""
        session = client.session
        if session is None:
            return
        has = client.connection.channels
        for channel in [name for name, one in has.items() if one.is_server_side]:
            if channel not in session.channels:
                client.perform(client.connection.unsubscribe(channel, SERVER_UNSUBSCRIBE))
        for channel in session.channels:
            if channel not in has:
                task = self._loop.create_task(self._add_server_side(client, channel))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _add_server_side(self, client: Client, channel: str) -> None:
        try:
            [subscribed] = await self._subscribe_server_side((channel,), {})
        except ClusterError as error:
            # Connected again, it gets what its session has.
            log.error("server_side_subscribe_failed", reason=str(error))
            client.perform(client.connection.disconnect(INSUFFICIENT_STATE))
            return
        actions: list[Action] = []
        if client.session is not None and channel in client.session.channels:
            actions = client.connection.subscribe_added(
                channel, subscribed.result, is_positioned=subscribed.is_positioned
            )
        if not actions:
            self.abort(subscribed)
            return
        client.perform(actions)
        self.join(subscribed, client)


def _wanted_session(data: Any) -> str:
    wanted = data.get("session") if type(data) is dict else None
    return wanted if type(wanted) is str else ""
