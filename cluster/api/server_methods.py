"""The methods of the server API, without HTTP.

A method gets the parameters of its request and returns a result, or raises `ClientError` with one of
the API's codes: 100 internal, 102 unknown channel, 104 not found, 107 bad request, 108 not available.
Unlike a client, a backend that has the key may use every channel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypedDict

import msgspec

from cluster import json_text
from cluster.api.publish_options import PublishOptions, publish_options
from cluster.errors import BAD_REQUEST, METHOD_NOT_FOUND, NOT_AVAILABLE, ClientError
from cluster.node.commands import Commands
from cluster.protocol import Position, server_publication_body

Params = dict[str, Any]
Result = dict[str, Any]
Method = Callable[[Params], Awaitable[Result]]

#: After this many publications of one request the event loop gets its turn.
PUBLICATIONS_PER_TURN: Final = 128
#: Most channels of one broadcast, and most commands of one batch.
MAXIMUM_CHANNELS: Final = 100_000
MAXIMUM_COMMANDS: Final = 10_000

#: Options of Centrifugo's API that this server does not have: refused, because ignoring one would lose what it asks for.
_NOT_SUPPORTED: Final = ("b64data",)


class _Params(TypedDict, total=False):
    """The members that a request of any method may have; others are ignored."""

    channel: Any
    channels: Any
    data: msgspec.Raw
    tags: Any
    commands: msgspec.Raw
    parallel: Any
    b64data: Any
    delta: Any
    idempotency_key: Any
    skip_history: Any
    version: Any
    version_epoch: Any


#: Reads the body of a request. Its data stays the text that was sent.
PARAMS: Final[json_text.JsonDecoder[Params]] = json_text.JsonDecoder(
    _Params, replaces_surrogates=True
)
_COMMANDS: Final[json_text.JsonDecoder[list[dict[str, Params]]]] = json_text.JsonDecoder(
    list[dict[str, _Params]], replaces_surrogates=True
)


class ServerMethods:
    """The API of one worker.

    Args:
        commands: of the worker's node.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._methods: Mapping[str, Method] = {
            "publish": self._publish,
            "broadcast": self._broadcast,
            "batch": self._batch,
        }

    async def call(self, method: str, params: Params) -> Result:
        """Call a method.

        Raises:
            ClientError: 104 for a method that does not exist, or what the method raises.
        """
        try:
            called = self._methods[method]
        except KeyError:
            raise METHOD_NOT_FOUND.fresh() from None
        return await called(params)

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
            return _done({"error": error_body(error)})
        return _response(sent)

    async def _batch(self, params: Params) -> Result:
        try:
            commands = _COMMANDS.decode(bytes(params.get("commands", b"")))
        except json_text.JsonTextInvalid:
            raise BAD_REQUEST.fresh() from None
        if len(commands) > MAXIMUM_COMMANDS:
            raise BAD_REQUEST.fresh()
        calls = [_command(command) for command in commands]
        if params.get("parallel"):
            replies = []
            for first in range(0, len(calls), PUBLICATIONS_PER_TURN):
                chunk = calls[first : first + PUBLICATIONS_PER_TURN]
                replies += await asyncio.gather(*(self._reply(*call) for call in chunk))
        else:
            replies = [await self._reply(*call) for call in calls]
        return {"replies": replies}

    async def _reply(self, method: str, params: Params) -> Result:
        try:
            return {method: await self.call(method, params)}
        except ClientError as error:
            return {"error": error_body(error)}


def error_body(error: ClientError) -> Result:
    """An error as a body has it."""
    return {"code": error.code, "message": error.message}


def _channel(params: Params) -> str:
    channel = params.get("channel")
    if type(channel) is not str or not channel:
        raise BAD_REQUEST.fresh()
    return channel


def _publication(params: Params) -> bytes:
    if any(params.get(name) for name in _NOT_SUPPORTED):
        raise NOT_AVAILABLE.fresh()
    tags = params.get("tags")
    if tags is not None and not (
        type(tags) is dict and all(type(value) is str for value in tags.values())
    ):
        raise BAD_REQUEST.fresh()
    wants_delta = params.get("delta") or False
    if type(wants_delta) is not bool:
        raise BAD_REQUEST.fresh()
    data = bytes(params.get("data", b""))
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


async def _response(sent: Awaitable[Position]) -> Result:
    try:
        return {"result": _position(await sent)}
    except ClientError as error:
        return {"error": error_body(error)}


async def _done(result: Result) -> Result:
    return result
