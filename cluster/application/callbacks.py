"""What the node of a worker calls when a client does something that an application handles.

The attributes `handles_…` say whether there is a handler. Without an application a worker has no object of
this class, and does nothing more than to look for one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, Protocol

import orjson

from cluster import json_text
from cluster.application.client_handles import ApplicationClient, HandledClient
from cluster.application.declaration import Application
from cluster.application.emulated_headers import emulated_headers
from cluster.application.handler_answers import (
    connect_answer,
    publish_answer,
    refresh_answer,
    rpc_result,
    subscribe_answer,
)
from cluster.application.handler_calls import HandlerCalls
from cluster.application.handler_values import (
    ChannelMember,
    ConnectAnswer,
    Connecting,
    Disconnecting,
    Publishing,
    RefreshAnswer,
    Refreshing,
    StreamHistory,
    SubRefreshing,
    Subscribing,
    channel_member,
    decoded,
    stream_publication,
)
from cluster.application.session_changes import SessionChanges
from cluster.auth import ANONYMOUS, Authenticator, Claims, SubscriptionClaims
from cluster.broker import Broker, HistoryPolicy
from cluster.config import Config, proxy_timeouts
from cluster.errors import (
    BAD_REQUEST,
    CONNECTION_CLOSED,
    INTERNAL,
    METHOD_NOT_FOUND,
    NOT_AVAILABLE,
    UNRECOVERABLE_POSITION,
    ClientError,
    Disconnect,
    StoreError,
)
from cluster.metrics.counters import Counters
from cluster.presence import PresenceStats
from cluster.protocol import (
    ConnectRequest,
    Position,
    SubscribeRequest,
    server_publication_body,
)
from cluster.sessions import Session, Sessions


class PresenceReader(Protocol):
    """Reads who is in a channel; see `cluster.node.presence`."""

    async def entries(self, channel: str) -> Mapping[str, bytes]: ...

    async def numbers(self, channel: str) -> PresenceStats: ...


class ApplicationCallbacks:
    """An application in one worker.

    Args:
        history_policy: of a channel; raises `ClientError`.
        publish: publishes a body; see `Commands.publish_from_server`.
        presence: reads who is in a channel; raises `ClientError`.

    Attributes:
        clients: the worker's clients, connected or not; set by the server.
        session_changed: wakes the handlers that wait for the change of a session.
        header_names: of the headers that its handlers read.
        calls: the calls of its handlers.
    """

    def __init__(
        self,
        application: Application,
        config: Config,
        counters: Counters,
        *,
        sessions: Sessions,
        broker: Broker,
        history_policy: Callable[[str], HistoryPolicy],
        publish: Callable[[str, bytes], Awaitable[Position]],
        presence: PresenceReader,
    ) -> None:
        self.clients: Iterable[HandledClient] = ()
        self.header_names = application.header_names
        self._emulated_header_names = application.emulated_header_names
        self.calls = HandlerCalls(config.app, counters, limits=proxy_timeouts(config))
        self._handlers = dict(application.handlers)
        self._rpc_methods = dict(application.rpc_methods)
        self._server_rpc_methods = dict(application.server_rpc_methods)
        self._sessions = SessionChanges(
            sessions, history_policy, channel_limit=config.client.channel_limit
        )
        self.session_changed = self._sessions.session_changed
        self._broker = broker
        self._timeout_seconds = config.broker.timeout
        self._history_policy = history_policy
        self._publish = publish
        self._presence = presence
        self._turns: dict[object, asyncio.Future[None]] = {}
        self.handles_connecting = "connecting" in self._handlers
        self.handles_refreshing = "refreshing" in self._handlers
        self.handles_subscribing = "subscribing" in self._handlers
        self.handles_sub_refreshing = "sub_refreshing" in self._handlers
        self.handles_publishing = "publishing" in self._handlers
        self.handles_rpc = bool(self._rpc_methods) or "any_rpc" in self._handlers
        self.handles_messages = "message" in self._handlers
        self._messages_are_raw = application.messages_are_raw
        self.handles_disconnecting = "disconnecting" in self._handlers
        application.start(self)

    # --- what clients do ---------------------------------------------------------------------

    def handle(self, client: HandledClient) -> ApplicationClient:
        """Make the handle of a connected client.

        Raises:
            Disconnect: its connection has ended.
        """
        if client.session is None:
            raise CONNECTION_CLOSED.fresh()
        return ApplicationClient(client, client.session, self._sessions)

    def keep_headers(self, client: HandledClient, request: ConnectRequest) -> None:
        """Keep those of a connect's headers that handlers read; raises `ClientError` 107."""
        client.emulated_headers = emulated_headers(request.headers, self._emulated_header_names)

    async def connecting(
        self,
        client: HandledClient,
        request: ConnectRequest,
        authenticator: Authenticator,
    ) -> tuple[Claims, dict[str, Any]]:
        """Decide on a connect; returns the claims, and the members of the reply's data.

        Args:
            authenticator: verifies the token, and decides on a client without one of which the handler
                says nothing.
        """
        claims = await _claims(request, authenticator)
        event = Connecting(
            client.connection.client,
            claims.user if claims is not None else None,
            claims.info if claims is not None else b"",
            request.name,
            request.data,
            bool(request.token),
            client.headers,
            client.connection.codec.name,
            request.version,
            tuple(request.subs),
            client.emulated_headers,
        )
        handler = self._handlers["connecting"]
        answer = await self.calls.call("connecting", handler, event, finish=self._connect_answer)
        if answer is None:
            return claims or await authenticator.connection(request.token), {}
        accepted, info, data = answer
        known = claims or ANONYMOUS
        return known._replace(
            user=known.user if accepted.user is None else accepted.user,
            info=known.info if info is None else info,
            expires_at=known.expires_at if accepted.expires_at is None else accepted.expires_at,
            channels=known.channels if accepted.channels is None else tuple(accepted.channels),
            subs=known.subs if accepted.subs is None else accepted.subs,
            meta=known.meta if accepted.meta is None else accepted.meta,
            is_refreshed_by_server=accepted.refreshed_by_server,
        ), data

    def _connect_answer(
        self, answer: Any
    ) -> tuple[ConnectAnswer, bytes | None, dict[str, Any]] | None:
        checked = connect_answer(answer)
        if checked is not None and checked[0].refreshed_by_server:
            self._demand_handler("refreshing")
        return checked

    def _demand_handler(self, kind: str) -> None:
        if kind not in self._handlers:
            raise TypeError(f"an answer with refreshed_by_server needs a handler @app.{kind}")

    async def refreshing_for_server(self, client: HandledClient) -> RefreshAnswer | None:
        """Ask whether a connection that has expired may go on; None is no."""
        handler = self._handlers["refreshing"]
        answer: RefreshAnswer | None = await self.calls.call(
            "refreshing", handler, self.handle(client), Refreshing("", None), finish=refresh_answer
        )
        return answer

    async def refreshing(
        self, client: HandledClient, token: str, authenticate: Callable[[], Awaitable[Claims]]
    ) -> tuple[Claims | None, RefreshAnswer]:
        """Decide on a refresh; returns the claims of the token, if it is ours, and how the connection goes on.

        Args:
            authenticate: verifies the token, and that it is the client's.
        """
        claims: Claims | None = None
        refusal: ClientError | Disconnect | None = None
        try:
            claims = await authenticate()
        except (ClientError, Disconnect) as why:
            refusal = why
        event = Refreshing(token, claims.expires_at if claims is not None else None)
        handle = self.handle(client)
        handler = self._handlers["refreshing"]
        answer: RefreshAnswer | None = await self.calls.call(
            "refreshing", handler, handle, event, finish=refresh_answer
        )
        if answer is not None:
            return claims, answer
        if claims is None:
            assert refusal is not None
            raise refusal
        return claims, RefreshAnswer(claims.expires_at)

    def decides_subscribe(self, request: SubscribeRequest, *, is_private: bool) -> bool:
        """Whether the handler is asked: a subscription token, or a private channel, is not its matter."""
        return self.handles_subscribing and not request.token and not is_private

    async def subscribing(
        self, client: HandledClient, request: SubscribeRequest
    ) -> SubscriptionClaims | None:
        """Decide on a subscribe; returns what it grants; None is no decision.

        Raises:
            ClientError: 103 if the handler refuses it.
        """
        handle = self.handle(client)
        handler = self._handlers["subscribing"]

        def finish(answer: Any) -> SubscriptionClaims | None:
            claims = subscribe_answer(answer, request.channel, handle.user)
            if claims is not None and claims.is_refreshed_by_server:
                self._demand_handler("sub_refreshing")
            return claims

        event = Subscribing(request.channel, request.data)
        granted: SubscriptionClaims | None = await self.calls.call(
            "subscribing", handler, handle, event, finish=finish
        )
        return granted

    async def sub_refreshing(self, client: HandledClient, channel: str) -> RefreshAnswer | None:
        """Ask whether a subscription that has expired may go on; None is no."""
        handler, event = self._handlers["sub_refreshing"], SubRefreshing(channel)
        answer: RefreshAnswer | None = await self.calls.call(
            "sub_refreshing", handler, self.handle(client), event, finish=refresh_answer
        )
        return answer

    async def publishing(
        self, handle: ApplicationClient, channel: str, data: bytes
    ) -> tuple[bytes, bool] | None:
        """Decide on a publish; returns the data, and whether it is not kept; None is no decision.

        Raises:
            ClientError: 103 if the handler refuses it.
        """
        handler = self._handlers["publishing"]

        def finish(answer: Any) -> tuple[bytes, bool] | None:
            return publish_answer(answer, data)

        decided: tuple[bytes, bool] | None = await self.calls.call(
            "publishing", handler, handle, Publishing(channel, data), finish=finish
        )
        return decided

    @contextlib.asynccontextmanager
    async def in_order(self, client: object) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Keep the order of a client's publishes, whose handlers run side by side.

        Yields a function that waits until the publishes that were entered before are left.
        """
        before = self._turns.get(client)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns[client] = turn

        async def its_turn() -> None:
            if before is not None:
                await before

        try:
            yield its_turn
        finally:
            # Also one that was refused must not let a later one pass those before it.
            if before is not None and not before.done():
                before.add_done_callback(lambda _: self._left(client, turn))
            else:
                self._left(client, turn)

    def _left(self, client: object, turn: asyncio.Future[None]) -> None:
        if not turn.done():
            turn.set_result(None)
        if self._turns.get(client) is turn:
            del self._turns[client]

    def rpc(
        self, client: HandledClient, method: str, data: bytes
    ) -> Coroutine[Any, Any, dict[str, Any]]:
        """Call the handler of a method.

        Raises:
            ClientError: 104 without one.
        """
        found = self._rpc_methods.get(method)
        if found is None:
            handler = self._handlers.get("any_rpc")
            if handler is None:
                raise METHOD_NOT_FOUND.fresh()
            handle = self.handle(client)
            return self.calls.call("rpc", handler, handle, method, data, finish=rpc_result)
        value = data if found.is_raw else decoded(data)
        handle = self.handle(client)
        return self.calls.call("rpc", found.handler, handle, value, finish=rpc_result)

    def rpc_from_server(self, method: str, data: bytes) -> Coroutine[Any, Any, dict[str, Any]]:
        """Call the handler of a method for a backend; raises as `rpc` does."""
        found = self._server_rpc_methods.get(method)
        if found is None:
            raise METHOD_NOT_FOUND.fresh()
        value = data if found.is_raw else decoded(data)
        return self.calls.call("rpc", found.handler, value, finish=rpc_result)

    async def message(self, handle: ApplicationClient, data: bytes) -> None:
        """Call the handler of messages.

        Raises:
            ClientError, Disconnect: what the handler raises; 107 for data without a value. Nothing answers an
                error.
        """
        value = data if self._messages_are_raw else decoded(data)
        await self.calls.call("message", self._handlers["message"], handle, value)

    async def disconnecting(self, client: HandledClient, session: Session, why: Disconnect) -> None:
        """Call the handler of ended connections; what it raises for the client has no effect."""
        handle = ApplicationClient(client, session, self._sessions)
        event = Disconnecting(why.code, why.reason)
        with contextlib.suppress(ClientError, Disconnect):
            await self.calls.call("disconnecting", self._handlers["disconnecting"], handle, event)

    # --- what the application does -------------------------------------------------------------

    def publish(self, channel: str, data: Any, tags: dict[str, str] | None) -> Awaitable[Position]:
        if tags and not _are_texts(tags):
            raise BAD_REQUEST.fresh()
        try:
            body = server_publication_body(json_text.of(data), tags)
        except (orjson.JSONEncodeError, json_text.JsonTextInvalid):
            raise BAD_REQUEST.fresh() from None
        return self._publish(channel, body)

    async def history(
        self, channel: str, *, limit: int, since: Position | None, reverse: bool
    ) -> StreamHistory:
        policy = self._history_policy(channel)
        if not policy.size:
            raise NOT_AVAILABLE.fresh()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                read = await self._broker.read(
                    channel,
                    policy,
                    since=since.offset if since is not None else None,
                    limit=limit,
                    reverse=reverse,
                    leaves_epoch=False,
                )
        except (StoreError, TimeoutError):
            raise INTERNAL.fresh() from None
        if since is not None and since.epoch and since.epoch != read.top.epoch:
            raise UNRECOVERABLE_POSITION.fresh()
        return StreamHistory(
            [stream_publication(one) for one in read.publications], read.top.offset, read.top.epoch
        )

    async def presence(self, channel: str) -> list[ChannelMember]:
        return [channel_member(info) for info in (await self._presence.entries(channel)).values()]

    async def presence_stats(self, channel: str) -> PresenceStats:
        return await self._presence.numbers(channel)

    def connected(self) -> list[ApplicationClient]:
        return [
            ApplicationClient(client, client.session, self._sessions)
            for client in list(self.clients)
            if client.session is not None
        ]


def _are_texts(tags: object) -> bool:
    # Whoever reads tags that are none would give up the whole history. orjson refuses lone surrogates.
    return isinstance(tags, dict) and all(
        type(name) is str and type(value) is str for name, value in tags.items()
    )


async def _claims(request: ConnectRequest, authenticator: Authenticator) -> Claims | None:
    if request.token:
        return await authenticator.verified(request.token)
    try:
        return await authenticator.verified("")
    except Disconnect:
        # A client without a token: the application may know it by its data.
        return None
