"""`Application`: a program declares its handlers with it, and uses the cluster through it.

One is made when the module that `app.target` names is imported, in every worker. Its decorators may be
used until the worker starts; its other methods work once it has started, from anywhere in the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar, overload

from aiohttp import web

from cluster.application.client_handles import ApplicationClient
from cluster.application.handler_calls import Handler
from cluster.application.handler_values import (
    ApplicationDisconnect,
    ChannelMember,
    ConnectAnswer,
    Connecting,
    Disconnecting,
    PublishAnswer,
    Publishing,
    RefreshAnswer,
    Refreshing,
    StreamHistory,
    SubRefreshing,
    SubscribeAnswer,
    Subscribing,
)
from cluster.errors import ClientError, Disconnect
from cluster.presence import PresenceStats
from cluster.protocol import Position
from cluster.turn_budget import ITEMS_PER_TURN, TurnBudget

A = TypeVar("A")

#: What a handler returns: it is a coroutine function, or a plain one, which must not block.
Answer: TypeAlias = A | Awaitable[A]

ConnectingHandler = Callable[[Connecting], Answer[ConnectAnswer | None]]
RefreshingHandler = Callable[[ApplicationClient, Refreshing], Answer[RefreshAnswer | None]]
SubscribingHandler = Callable[
    [ApplicationClient, Subscribing], Answer[SubscribeAnswer | bool | None]
]
SubRefreshingHandler = Callable[[ApplicationClient, SubRefreshing], Answer[RefreshAnswer | None]]
PublishingHandler = Callable[[ApplicationClient, Publishing], Answer[PublishAnswer | bool | None]]
DataHandler = Callable[[ApplicationClient, Any], Any]
ServerRpcHandler = Callable[[Any], Any]
DisconnectingHandler = Callable[[ApplicationClient, Disconnecting], Any]

C = TypeVar("C", bound=ConnectingHandler)
R = TypeVar("R", bound=RefreshingHandler)
S = TypeVar("S", bound=SubscribingHandler)
SR = TypeVar("SR", bound=SubRefreshingHandler)
P = TypeVar("P", bound=PublishingHandler)
D = TypeVar("D", bound=DataHandler)
SD = TypeVar("SD", bound=ServerRpcHandler)
E = TypeVar("E", bound=DisconnectingHandler)

_NOT_STARTED: Final = (
    "the application has not been started by a worker: use it in handlers, in app.http, and in what"
    " app.http.on_startup or app.http.cleanup_ctx starts"
)


class RpcMethod(NamedTuple):
    """The handler of an rpc method; `is_raw` if it gets the data as JSON text."""

    handler: Handler
    is_raw: bool


class WorkerOperations(Protocol):
    """What an application can do in its worker; see `ApplicationCallbacks`."""

    def publish(self, channel: str, data: Any, tags: dict[str, str] | None) -> Awaitable[Position]:
        """Send a publication at once."""

    async def history(
        self, channel: str, *, limit: int, since: Position | None, reverse: bool
    ) -> StreamHistory:
        """Read a channel's stream."""

    async def presence(self, channel: str) -> list[ChannelMember]:
        """Read who is in a channel."""

    async def presence_stats(self, channel: str) -> PresenceStats:
        """Read how many are in a channel."""

    def connected(self) -> list[ApplicationClient]:
        """The clients of this worker."""


class Application:
    """An application that runs in every worker of a cluster.

    Args:
        headers: names of headers of a client's handshake that its handlers read; others are not kept.
        emulated_headers: names of headers of a client's connect command, likewise. The client writes there what
            it likes, so they are apart from those of the handshake, which a proxy in front can set or remove.

    Attributes:
        http: its HTTP application. Its routes are served on the public port below `/app/`: the route `/` is
            `/app/`. Middlewares, `on_startup`, `cleanup_ctx` and `on_cleanup` work as they do in aiohttp.
        handlers: by kind; those of rpc stand in `rpc_methods`, by method, those for backends in
            `server_rpc_methods`.
        messages_are_raw: whether the handler of messages gets JSON text.
    """

    def __init__(
        self,
        *,
        http: web.Application | None = None,
        headers: Iterable[str] = (),
        emulated_headers: Iterable[str] = (),
    ) -> None:
        self.header_names = tuple(name.lower() for name in headers)
        self.emulated_header_names = tuple(name.lower() for name in emulated_headers)
        self.http = web.Application() if http is None else http
        self.handlers: dict[str, Handler] = {}
        self.messages_are_raw = False
        self.rpc_methods: dict[str, RpcMethod] = {}
        self.server_rpc_methods: dict[str, RpcMethod] = {}
        self._operations: WorkerOperations | None = None
        self._disconnects: set[asyncio.Task[None]] = set()

    # --- declaring handlers ------------------------------------------------------------------

    def connecting(self, handler: C) -> C:
        """Call `handler(event)` when a client connects, after its token was verified.

        It returns a `ConnectAnswer`, or None: then the token decides. A client without a token is
        accepted only with a `ConnectAnswer`, in insecure mode, or with
        `client.allow_anonymous_connect_without_token`.
        """
        return self._declare("connecting", handler)

    def refreshing(self, handler: R) -> R:
        """Call `handler(client, event)` when a client extends its connection.

        It returns a `RefreshAnswer`, or None: then the token decides.
        """
        return self._declare("refreshing", handler)

    def subscribing(self, handler: S) -> S:
        """Call `handler(client, event)` when a client subscribes without a subscription token.

        It returns True or a `SubscribeAnswer` to allow it, False to refuse it with 103, or None: then
        the options of the channel's namespace decide. It is not asked about private channels (`$…`).
        """
        return self._declare("subscribing", handler)

    def sub_refreshing(self, handler: SR) -> SR:
        """Call `handler(client, event)` when a subscription expires that `refreshed_by_server` is set for.

        It returns a `RefreshAnswer`, or None: then the subscription ends, and the SDK subscribes again.
        """
        return self._declare("sub_refreshing", handler)

    def publishing(self, handler: P) -> P:
        """Call `handler(client, event)` when a client publishes.

        It returns True or a `PublishAnswer` to allow it, False to refuse it with 103, or None: then the
        options of the channel's namespace decide. What one client publishes keeps its order.
        """
        return self._declare("publishing", handler)

    def rpc(self, method: str, *, raw: bool = False) -> Callable[[D], D]:
        """Call `handler(client, data)` when a client calls this method; its answer is the result.

        Args:
            raw: the handler gets the data as JSON text, byte for byte.
        """
        return _declares(self.rpc_methods, method, raw=raw)

    def rpc_from_server(self, method: str, *, raw: bool = False) -> Callable[[SD], SD]:
        """Call `handler(data)` when a backend calls this method with the server API, at whichever worker.

        Args:
            raw: the handler gets the data as JSON text, byte for byte.
        """
        return _declares(self.server_rpc_methods, method, raw=raw)

    def any_rpc(self, handler: A) -> A:
        """Call `handler(client, method, text)` for each method without a handler; `text` is the data as JSON."""
        return self._declare("any_rpc", handler)

    @overload
    def message(self, handler: D) -> D: ...

    @overload
    def message(self, *, raw: bool = False) -> Callable[[D], D]: ...

    def message(self, handler: D | None = None, *, raw: bool = False) -> D | Callable[[D], D]:
        """Call `handler(client, data)` for each message that a client sends (`send`).

        Args:
            raw: the handler gets the data as JSON text, byte for byte. Without it, a message of which no
                value can be made is counted as an error 107 of the client, and nobody gets it.
        """

        def declare(handler: D) -> D:
            self._declare("message", handler)
            self.messages_are_raw = raw
            return handler

        return declare if handler is None else declare(handler)

    def disconnecting(self, handler: E) -> E:
        """Call `handler(client, event)` when the connection of a client has ended.

        It is not called if the worker is killed, and not when more connections end at a time than
        handlers may wait.
        """
        return self._declare("disconnecting", handler)

    def _declare(self, kind: str, handler: A) -> A:
        if not callable(handler):
            raise TypeError(f"@app.{kind} is for a function; {handler!r} is none")
        if kind in self.handlers:
            raise ValueError(f"there is a handler for {kind} already")
        self.handlers[kind] = handler
        return handler

    # --- using the cluster -------------------------------------------------------------------

    def start(self, operations: WorkerOperations) -> None:
        """Let the application use its worker; the worker calls it before any handler runs."""
        self._operations = operations

    @property
    def _worker(self) -> WorkerOperations:
        if self._operations is None:
            raise RuntimeError(_NOT_STARTED)
        return self._operations

    async def publish(
        self, channel: str, data: Any, *, tags: dict[str, str] | None = None
    ) -> Position:
        """Publish to a channel, whatever clients may do there.

        Args:
            data: `bytes` are JSON text that clients get as it is, another value is encoded.

        Returns:
            Its position; (0, "") in a channel without history.

        Raises:
            ClientError: 102 for an unknown namespace, 107 for a name or data that cannot be used, 100 when
                the store is unavailable: then it may have been published or not.
        """
        return await self._worker.publish(channel, data, tags)

    async def broadcast(
        self, channels: Iterable[str], data: Any, *, tags: dict[str, str] | None = None
    ) -> list[Position | ClientError]:
        """Publish the same to several channels; returns for each its position, or its error."""
        sent: list[Position | ClientError] = []
        for part in _parts(list(channels), _CHANNELS_PER_TURN):
            outcomes = await asyncio.gather(
                *(self.publish(channel, data, tags=tags) for channel in part),
                return_exceptions=True,
            )
            for outcome in outcomes:
                if isinstance(outcome, BaseException) and not isinstance(outcome, ClientError):
                    raise outcome
                sent.append(outcome)
        return sent

    async def history(
        self,
        channel: str,
        *,
        limit: int = -1,
        since: Position | None = None,
        reverse: bool = False,
    ) -> StreamHistory:
        """Read the history of a channel, oldest first.

        Args:
            limit: publications at most, -1 for all that there are.
            since: only publications after this position; before it if `reverse`.
            reverse: newest first.

        Raises:
            ClientError: 102 for an unknown namespace, 108 without history, 112 if `since` has another
                epoch, 100 when the store is unavailable.
        """
        return await self._worker.history(channel, limit=limit, since=since, reverse=reverse)

    async def presence(self, channel: str) -> list[ChannelMember]:
        """Who is in a channel now, at whichever worker.

        Raises:
            ClientError: 102 for an unknown namespace, 106 for more members than 16 MiB hold, 108 without
                presence, 100 when the store is unavailable.
        """
        return await self._worker.presence(channel)

    async def presence_stats(self, channel: str) -> PresenceStats:
        """How many connections and users are in a channel, however many; raises as `presence` does."""
        return await self._worker.presence_stats(channel)

    def clients(self, *, user: str | None = None) -> list[ApplicationClient]:
        """The clients that are connected to this worker; only those of `user` if it is given."""
        connected = self._worker.connected()
        return connected if user is None else [one for one in connected if one.user == user]

    def disconnect(
        self,
        *,
        user: str | None = None,
        client: str | None = None,
        code: int = 4500,
        reason: str = "disconnected",
    ) -> int:
        """Close connections of this worker; returns how many.

        A few are closed at once, the rest in the next turns of the event loop.

        Args:
            user: those of this user.
            client: the one with this id. If both are given, both must be so.

        Raises:
            ValueError: without user and client, or as `ApplicationDisconnect` does.
        """
        if user is None and client is None:
            raise ValueError("name the user or the client whose connections are to be closed")
        why: Disconnect = ApplicationDisconnect(code, reason)
        found = [one for one in self.clients(user=user) if client is None or one.id == client]
        for one in found[:ITEMS_PER_TURN]:
            one.disconnect(why.code, why.reason)
        if len(found) > ITEMS_PER_TURN:
            task = asyncio.create_task(_disconnect(found[ITEMS_PER_TURN:], why))
            self._disconnects.add(task)
            task.add_done_callback(self._disconnects.discard)
        return len(found)


async def _disconnect(clients: Sequence[ApplicationClient], why: Disconnect) -> None:
    budget = TurnBudget()
    for one in clients:
        await budget.spend()
        one.disconnect(why.code, why.reason)


def _declares(methods: dict[str, RpcMethod], method: str, *, raw: bool) -> Callable[[A], A]:
    def declare(handler: A) -> A:
        if not callable(handler):
            raise TypeError(f"the rpc method {method!r} is for a function; {handler!r} is none")
        if method in methods:
            raise ValueError(f"the rpc method {method!r} has a handler already")
        methods[method] = RpcMethod(handler, raw)
        return handler

    return declare


_CHANNELS_PER_TURN: Final = 128


def _parts(values: list[str], size: int) -> Iterable[Sequence[str]]:
    return (values[first : first + size] for first in range(0, len(values), size))
