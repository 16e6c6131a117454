"""The methods of the server API, without HTTP.

A method gets the parameters of its request and returns a result, or raises `ClientError` with one of
the API's codes: 100 internal, 102 unknown channel, 104 not found, 107 bad request, 108 not available.
Unlike a client, a backend that has the key may use every channel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from cluster import json_text
from cluster.api.access_methods import AccessMethods, RevocationStore
from cluster.api.api_keys import ApiKey
from cluster.api.publish_options import PublishOptions, publish_options
from cluster.api.read_methods import ReadMethods
from cluster.api.request_params import COMMANDS, Params, checked_params, json_member
from cluster.api.user_methods import UserMethods
from cluster.errors import BAD_REQUEST, METHOD_NOT_FOUND, ClientError
from cluster.metrics.counters import Counters
from cluster.node.control import Control
from cluster.node.node import Node
from cluster.node.survey import Survey
from cluster.protocol import Position, server_publication_body

Result = dict[str, Any]
Method = Callable[[Params], Awaitable[Result]]

#: After this many publications of one request the event loop gets its turn.
PUBLICATIONS_PER_TURN: Final = 128
#: Most channels of one broadcast, and most commands of one batch.
MAXIMUM_CHANNELS: Final = 100_000
MAXIMUM_COMMANDS: Final = 10_000


class ServerMethods:
    """The API of one worker."""

    def __init__(
        self,
        node: Node,
        control: Control,
        survey: Survey,
        counters: Counters,
        revocations: RevocationStore | None = None,
    ) -> None:
        self._commands = node.commands
        self._counters = counters
        users, reads = UserMethods(control, node.permissions), ReadMethods(node, survey)
        access = AccessMethods(control, revocations, counters)
        self._read_channels = reads.channels
        self._methods: Mapping[str, Method] = {
            "publish": self._publish,
            "broadcast": self._broadcast,
        }
        self._checked: Mapping[str, Method] = {
            "subscribe": users.subscribe,
            "unsubscribe": users.unsubscribe,
            "disconnect": users.disconnect,
            "refresh": users.refresh,
            "presence": reads.presence,
            "presence_stats": reads.presence_stats,
            "history": reads.history,
            "history_remove": reads.history_remove,
            "connections": reads.connections,
            "info": reads.info,
            "rpc": reads.rpc,
            "revoke_token": access.revoke_token,
            "invalidate_user_tokens": access.invalidate_user_tokens,
            "block_user": access.block_user,
            "unblock_user": access.unblock_user,
        }

    async def call(self, method: str, params: Params, key: ApiKey) -> Result:
        """Call a method.

        Raises:
            ClientError: 104 for a method that does not exist, or what the method raises.
            KeyForbids: the key may not do it; nothing was done.
        """
        key.check(method, params)
        if method == "batch":
            return await self._batch(params, key)
        return await self._call(method, params, key)

    async def _call(self, method: str, params: Params, key: ApiKey) -> Result:
        called = self._methods.get(method)
        if called is not None:
            return await called(params)
        called = self._checked.get(method)
        if called is not None:
            return await called(checked_params(method, params))
        if method == "channels":
            return await self._read_channels(checked_params(method, params), key)
        raise METHOD_NOT_FOUND.fresh()

    async def _publish(self, params: Params) -> Result:
        body, (condition, skips_history) = _publication(params), publish_options(params)
        sent = self._commands.publish_from_server(
            _channel(params), body, condition=condition, skips_history=skips_history
        )
        return _position(await sent)

    async def _broadcast(self, params: Params) -> Result:
        body, options = _publication(params), publish_options(params)
        channels = params.get("channels")
        if type(channels) is not list or not 0 < len(channels) <= MAXIMUM_CHANNELS:
            raise BAD_REQUEST.fresh()
        responses: list[Result] = []
        for first in range(0, len(channels), PUBLICATIONS_PER_TURN):
            chunk = channels[first : first + PUBLICATIONS_PER_TURN]
            # Sent in one turn, so in one pipeline; the answers are awaited in order.
            replies = [self._published_to(channel, body, options) for channel in chunk]
            responses += await asyncio.gather(*replies)
        return {"responses": responses}

    def _published_to(
        self, channel: Any, body: bytes, options: PublishOptions
    ) -> Awaitable[Result]:
        """Publish now, in the order of the calls; returns the response of one channel."""
        try:
            if type(channel) is not str or not channel:
                raise BAD_REQUEST.fresh()
            sent = self._commands.publish_from_server(
                channel, body, condition=options.condition, skips_history=options.skips_history
            )
        except ClientError as error:
            return _done({"error": self._error_of(error)})
        return self._response(sent)

    async def _batch(self, params: Params, key: ApiKey) -> Result:
        try:
            commands = COMMANDS.decode(bytes(params.get("commands", b"")))
        except json_text.JsonTextInvalid:
            raise BAD_REQUEST.fresh() from None
        calls = [_command(command) for command in commands]
        replies = await self.call_each(calls, key, is_parallel=bool(params.get("parallel")))
        return {
            "replies": [
                {method: reply["result"]} if "result" in reply else reply
                for (method, _), reply in zip(calls, replies, strict=True)
            ]
        }

    async def call_each(
        self, calls: Sequence[tuple[str, Params]], key: ApiKey, *, is_parallel: bool = False
    ) -> list[Result]:
        """Call methods, `batch` not among them; each has an answer with `result` or `error`, in their order.

        Raises:
            ClientError: 107 for too many of them; nothing was done.
            KeyForbids: the key may not do one of them; nothing was done.
        """
        if len(calls) > MAXIMUM_COMMANDS:
            raise BAD_REQUEST.fresh()
        for method, params in calls:
            key.check(method, params)
        replies: list[Result] = []
        for first in range(0, len(calls), PUBLICATIONS_PER_TURN):
            replies += await self._replies(
                calls[first : first + PUBLICATIONS_PER_TURN], key, is_parallel=is_parallel
            )
        return replies

    async def _replies(
        self, calls: Sequence[tuple[str, Params]], key: ApiKey, *, is_parallel: bool
    ) -> list[Result]:
        """Call some commands; publishes that follow each other leave in one pipeline, in order."""
        if is_parallel:
            return await asyncio.gather(*(self._reply(*call, key) for call in calls))
        replies: list[Result] = []
        sent: list[asyncio.Future[Result]] = []
        for method, params in calls:
            if method == "publish":
                # A task runs until its publish has been sent before the next task begins.
                sent.append(asyncio.ensure_future(self._reply(method, params, key)))
                continue
            replies += await asyncio.gather(*sent)
            sent.clear()
            replies.append(await self._reply(method, params, key))
        return replies + await asyncio.gather(*sent)

    async def _reply(self, method: str, params: Params, key: ApiKey) -> Result:
        try:
            return {"result": await self._call(method, params, key)}
        except ClientError as error:
            return {"error": self._error_of(error)}

    async def _response(self, sent: Awaitable[Position]) -> Result:
        try:
            return {"result": _position(await sent)}
        except ClientError as error:
            return {"error": self._error_of(error)}

    def _error_of(self, error: ClientError) -> Result:
        self._counters.api_error(error.code)
        return error_body(error)


def error_body(error: ClientError) -> Result:
    """An error as a body has it."""
    return {"code": error.code, "message": error.message}


def _channel(params: Params) -> str:
    channel = params.get("channel")
    if type(channel) is not str or not channel:
        raise BAD_REQUEST.fresh()
    return channel


def _publication(params: Params) -> bytes:
    tags = params.get("tags")
    if tags is not None and not (
        type(tags) is dict and all(type(value) is str for value in tags.values())
    ):
        raise BAD_REQUEST.fresh()
    wants_delta = params.get("delta") or False
    if type(wants_delta) is not bool:
        raise BAD_REQUEST.fresh()
    data = bytes(params.get("data", b""))
    if params.get("b64data"):
        data = json_member(params, "data", "b64data")
    return server_publication_body(data, tags, wants_delta=wants_delta)


def _command(command: dict[str, Params]) -> tuple[str, Params]:
    """One command of a batch: an object with one method."""
    if len(command) != 1:
        raise BAD_REQUEST.fresh()
    [(method, params)] = command.items()
    # A batch in a batch would make the work of one request unbounded.
    if method == "batch":
        raise BAD_REQUEST.fresh()
    return method, params


def _position(position: Position) -> Result:
    return {"offset": position.offset, "epoch": position.epoch} if position.offset else {}


async def _done(result: Result) -> Result:
    return result
