"""The commands of a connected client: publish, history, rpc."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final

import orjson

from cluster import json_text
from cluster.application import ApplicationCallbacks, ApplicationClient
from cluster.application.client_handles import HandledClient
from cluster.broker import Broker, ConditionalResult, HistoryPolicy, PublishCondition
from cluster.config import Config
from cluster.connection import Connection
from cluster.errors import (
    BAD_REQUEST,
    INTERNAL,
    METHOD_NOT_FOUND,
    NOT_AVAILABLE,
    UNRECOVERABLE_POSITION,
    ClientError,
    Disconnect,
    StoreError,
)
from cluster.log import get_logger
from cluster.metrics.counters import Counters
from cluster.node.permissions import ChannelPermissions, Operation
from cluster.node.reads import StreamReads
from cluster.protocol import (
    HistoryRequest,
    Position,
    publication_body,
    publications_json,
)

log = get_logger()

#: Handles an rpc: gets the user and the data as JSON text, as the client sent it (`null` if it sent none).
#: Returns JSON text as `bytes`, which the client gets as it is, or another value, which is encoded; or a
#: coroutine for one of them. A plain function is called without a task and must not block. It raises
#: `ClientError` to refuse.
RpcHandler = Callable[[str, bytes], Any]

# Looked up once: see `connection.actions`.
_PUBLISH: Final = Operation.PUBLISH

#: orjson encodes no more levels of arrays and objects than this.
_ENCODED_NESTING = 254


class Commands:
    """The commands of one worker's connected clients.

    Args:
        rpc_handlers: by method; none at all answers every call with 108.
    """

    def __init__(
        self,
        config: Config,
        permissions: ChannelPermissions,
        broker: Broker,
        reads: StreamReads,
        counters: Counters,
        rpc_handlers: Mapping[str, RpcHandler],
    ) -> None:
        self._config = config
        self._permissions = permissions
        self._broker = broker
        self._reads = reads
        self._counters = counters
        self._rpc_handlers = dict(rpc_handlers)
        #: Set by the node if the worker runs an application.
        self.application: ApplicationCallbacks | None = None
        self._publishing = 0
        self._all_published = asyncio.Event()

    def publish(
        self,
        connection: Connection,
        channel: str,
        data: bytes,
        done: Callable[[ClientError | None], None],
    ) -> None:
        """Publish for a client; `done` is called once, with None when it was accepted."""
        try:
            access = self._permissions.allow(_PUBLISH, channel, connection)
            if access.checks_data and not access.accepts(data):
                raise BAD_REQUEST.fresh()
        except ClientError as error:
            done(error)
            return
        self._send(connection, channel, data, access.history, done)

    async def publish_decided(
        self,
        connection: Connection,
        handle: ApplicationClient,
        channel: str,
        data: bytes,
        done: Callable[[ClientError | None], None],
    ) -> None:
        """Publish for a client what the application's handler allows, in the order of the calls.

        Raises:
            ClientError, Disconnect: what the handler raises, or 102, 103, 107 as the permissions say; `done`
                is not called then.
        """
        application = self.application
        assert application is not None
        async with application.in_order(connection) as its_turn:
            access = self._permissions.access(channel)
            policy, decided = access.history, await application.publishing(handle, channel, data)
            if decided is None:
                self._permissions.allow(Operation.PUBLISH, channel, connection)
            else:
                data, skips_history = decided
                policy = policy._replace(size=0) if skips_history else policy
            if access.checks_data and not access.accepts(data):
                raise BAD_REQUEST.fresh()
            await its_turn()
            self._send(connection, channel, data, policy, done)

    def _send(
        self,
        connection: Connection,
        channel: str,
        data: bytes,
        policy: HistoryPolicy,
        done: Callable[[ClientError | None], None],
    ) -> None:
        subscription = connection.channels.get(channel)
        details = subscription.details if subscription is not None else None
        body = publication_body(
            data,
            connection.user,
            connection.client,
            connection.info,
            details.info if details is not None else b"",
        )
        self._publishing += 1
        self._broker.publish(
            channel, body, policy, int(time.time() * 1000), partial(self._published, done)
        )

    def _published(
        self, done: Callable[[ClientError | None], None], reply: Position | StoreError
    ) -> None:
        done(self._settled(reply))

    def _settled(self, reply: Position | StoreError, suppressed_by: str = "") -> ClientError | None:
        """Count what became of a publish; returns the error for its publisher."""
        self._publishing -= 1
        if not self._publishing:
            self._all_published.set()
        if isinstance(reply, StoreError):
            store_failed(self._counters, "publish_failed", reply, kind="broker")
            return INTERNAL
        if suppressed_by:
            self._counters.publications_suppressed[suppressed_by] += 1
        else:
            self._counters.publications += 1
        return None

    def publish_from_server(
        self,
        channel: str,
        body: bytes,
        *,
        condition: PublishCondition | None = None,
        skips_history: bool = False,
    ) -> asyncio.Future[Position]:
        """Publish what an application's backend sends: at once, before this returns.

        Args:
            body: see `protocol.server_publication_body`.
            condition: when it is a repetition, for which the result has the position of what was first.
            skips_history: send it to the subscribers only, as in a channel without history.

        Returns:
            The position, (0, "") without history; or `ClientError` 100 as its exception.

        Raises:
            ClientError: 102, 107 as the permissions say, and 107 for data that is not of the channel's format.
        """
        access = self._permissions.access(channel)
        if access.checks_data and not access.accepts_body(body):
            raise BAD_REQUEST.fresh()
        policy = access.history
        if skips_history:
            policy = policy._replace(size=0)
        sent: asyncio.Future[Position] = asyncio.get_running_loop().create_future()

        def done(reply: Position | StoreError, suppressed_by: str = "") -> None:
            error = self._settled(reply, suppressed_by)
            if sent.done():
                return  # The request was given up.
            if isinstance(reply, Position):
                sent.set_result(reply)
            elif error is not None:
                sent.set_exception(error.fresh())

        def conditional_done(reply: ConditionalResult | StoreError) -> None:
            if isinstance(reply, ConditionalResult):
                done(*reply)
            else:
                done(reply)

        self._publishing += 1
        now_ms = int(time.time() * 1000)
        if condition is None:
            self._broker.publish(channel, body, policy, now_ms, done)
        else:
            self._broker.publish_conditional(
                channel, body, policy, now_ms, condition, conditional_done
            )
        return sent

    async def flush(self) -> None:
        """Wait until every publish in flight has been answered; the caller bounds the time."""
        while self._publishing:
            self._all_published.clear()
            await self._all_published.wait()

    async def history(
        self, reader: object, request: HistoryRequest, connection: Connection
    ) -> dict[str, Any]:
        """Read a channel's stream for a client, as much of it as one reply may hold.

        Raises:
            ClientError: 108 without history, 112 for another epoch, 102, 103, 107 as the permissions say,
                100 when the store is unavailable.
        """
        policy = self._permissions.allow(Operation.HISTORY, request.channel, connection).history
        most = self._config.client.history_max_publication_limit
        limit = most if request.limit < 0 else min(request.limit, most)
        since = request.since
        try:
            async with self._reads.turn(reader), asyncio.timeout(self._config.broker.timeout):
                read = await self._broker.read(
                    request.channel,
                    policy,
                    since=since.offset if since is not None else None,
                    limit=limit,
                    reverse=request.reverse,
                    max_bytes=self._config.client.history_max_publication_bytes,
                    leaves_epoch=False,
                )
                await self._reads.handled_alone(reader, read.publications)
        except (StoreError, TimeoutError) as error:
            store_failed(self._counters, "history_failed", error)
            raise INTERNAL.fresh() from None
        if since is not None and since.epoch and since.epoch != read.top.epoch:
            raise UNRECOVERABLE_POSITION.fresh()
        self._counters.stream_reads["cut"] += read.is_cut
        return {
            "publications": publications_json(read.publications),
            "epoch": read.top.epoch,
            "offset": read.top.offset,
        }

    def rpc(
        self, client: HandledClient, method: str, data: bytes
    ) -> dict[str, Any] | Coroutine[Any, Any, dict[str, Any]]:
        """Call an application's handler.

        Returns:
            The result, or a coroutine for it if the handler returned one.

        Raises:
            ClientError: 108 without any handler, 104 without this one, 100 when it fails, or
                the `ClientError` that it raises; the coroutine raises the last two.
        """
        application = self.application
        if application is not None and application.handles_rpc:
            return application.rpc(client, method, data)
        if not self._rpc_handlers:
            raise NOT_AVAILABLE.fresh()
        handler = self._rpc_handlers.get(method)
        if handler is None:
            raise METHOD_NOT_FOUND.fresh()
        try:
            answer = handler(client.connection.user, data)
            if hasattr(answer, "__await__"):
                return self._awaited(method, data, answer)
            return _rpc_result(data, answer)
        except Exception as error:  # noqa: BLE001 - an application may raise anything
            raise self._handler_failed(method, data, error) from None

    async def rpc_from_server(self, method: str, data: bytes) -> dict[str, Any]:
        """Call an application's handler for its backend: without a user.

        Raises:
            ClientError: 104 without this handler, 100 when it fails or closes a connection, which there is
                none of, or the `ClientError` that it raises.
        """
        if self.application is not None:
            try:
                return await self.application.rpc_from_server(method, data)
            except Disconnect as why:
                raise self._handler_failed(method, data, why) from None
        handler = self._rpc_handlers.get(method)
        if handler is None:
            raise METHOD_NOT_FOUND.fresh()
        try:
            answer = handler("", data)
            return _rpc_result(data, await answer if hasattr(answer, "__await__") else answer)
        except Exception as error:  # noqa: BLE001 - an application may raise anything
            raise self._handler_failed(method, data, error) from None

    async def _awaited(self, method: str, data: bytes, answer: Awaitable[Any]) -> dict[str, Any]:
        try:
            return _rpc_result(data, await answer)
        except Exception as error:  # noqa: BLE001 - as above
            raise self._handler_failed(method, data, error) from None

    def _handler_failed(self, method: str, data: bytes, error: Exception) -> ClientError:
        """Return the error for the client; call while the exception is being handled."""
        if isinstance(error, ClientError):
            return error
        if isinstance(error, orjson.JSONEncodeError) and json_text.is_too_deep(
            data, _ENCODED_NESTING
        ):
            # The client's data can be parsed and not encoded: no fault of the handler.
            return BAD_REQUEST
        self._counters.errors["handler"] += 1
        log.error("rpc_handler_failed", method=method, exc_info=error)
        return INTERNAL.fresh()


def _rpc_result(data: bytes, answer: Any) -> dict[str, Any]:
    # Checked or encoded here, so that an answer that is no JSON counts as an error of the handler.
    if answer is not data:
        answer = json_text.of(answer)
    return {"data": orjson.Fragment(answer)}


def store_failed(
    counters: Counters, event: str, error: StoreError | TimeoutError, kind: str = "store"
) -> None:
    """Count and log that the store failed a client's command."""
    counters.errors[kind] += 1
    log.error(event, reason=str(error) or "the store is too slow")
