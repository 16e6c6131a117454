"""The commands of one connection, in order: which is handled now, which must wait, which is refused.

Commands wait for a connect, for a subscribe, and for the next turn of the event loop when this turn's
budget is spent. A message of many commands waits undecoded, but for its first part. `state_machine` has the handlers of all commands but connect and publish.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, ClassVar

from cluster.auth import ANONYMOUS, Claims
from cluster.codec import JSON, Codec
from cluster.connection.actions import (
    CLOSED,
    CONNECTED,
    CONNECTING,
    NEW,
    REFUSED,
    Action,
    Close,
    Connect,
    Publish,
    Send,
    Subscription,
)
from cluster.decoding_in_parts import DECODED_AT_ONCE
from cluster.errors import BAD_REQUEST_CLOSE, ClientError, Disconnect
from cluster.metrics.counters import Counters
from cluster.protocol import (
    Command,
    connect_request,
    error_reply,
    publish_request,
    reply,
)

#: With more commands than this waiting or in progress, the owner should stop reading. One in progress takes
#: 2 to 3 KiB until it is answered.
CONGESTED_COMMANDS = 64

#: With more bytes than this in messages with waiting commands, or in publishes in progress, too: twice the longest
#: message, by default. A client that has no token yet may wait for a backend with 64 commands of 64 KiB.
CONGESTED_BYTES = 131_072

#: After this many commands of one connection the next turn of the event loop is waited for.
COMMANDS_PER_TURN = 32

#: Of what a client calls its application, so much is kept; SDKs send less.
_LONGEST_APPLICATION_NAME = 64


@lru_cache(maxsize=256)
def _shared(name: str) -> str:
    """The same string for the same name: most clients send one of few."""
    return name


class CommandIntake:
    """The order and the state of a connection's commands; a subclass has their handlers."""

    __slots__ = (
        "_counters", "_pending", "_pending_bytes", "_subscribing", "_undecoded", "_waiting", "_waiting_bytes",
        "app_name", "app_version", "awaits_pong", "budget", "channels", "claims", "codec", "commands", "expires_at", "info", "state", "user",
    )  # fmt: skip

    _handlers: ClassVar[Mapping[str, Callable[[Any, Command, list[Action]], None]]]

    def __init__(self, counters: Counters, codec: Codec = JSON) -> None:
        self.codec = codec
        self.user = ""
        self.app_name = self.app_version = ""
        self.claims = ANONYMOUS
        self.info = b""
        self.expires_at = 0
        self.channels: dict[str, Subscription] = {}
        self.state = NEW
        self.awaits_pong = 0
        self.budget = COMMANDS_PER_TURN
        self.commands = 0
        self._counters = counters
        self._subscribing: set[str] | None = None
        self._waiting: deque[Command] | None = None
        # Messages that arrived after what is waiting, the first one as far as it is not decoded yet.
        self._undecoded: deque[Iterator[Command]] | None = None
        self._pending = self._pending_bytes = self._waiting_bytes = 0

    @property
    def is_congested(self) -> bool:
        """Whether the owner should stop reading from the client for now."""
        waiting = self._waiting
        if self._undecoded:
            return True
        if not waiting:
            return self._pending > CONGESTED_COMMANDS or self._pending_bytes > CONGESTED_BYTES
        return (
            self.budget <= 0
            or len(waiting) + self._pending > CONGESTED_COMMANDS
            or self._waiting_bytes + self._pending_bytes > CONGESTED_BYTES
        )

    @property
    def awaits_answers(self) -> bool:
        """Whether so many commands are in progress that the owner should begin no other."""
        return self._pending > CONGESTED_COMMANDS and self.state is CONNECTED

    @property
    def has_waiting(self) -> bool:
        """Whether commands wait for a subscribe, or for the next turn."""
        return bool(self._waiting or self._undecoded)

    @property
    def is_idle(self) -> bool:
        """Whether the client is connected and none of its commands is in progress."""
        return self.state is CONNECTED and not (self._pending or self._waiting or self._subscribing)

    # --- from the client -------------------------------------------------------------------

    def receive(self, payload: bytes) -> list[Action]:
        """Handle one WebSocket message."""
        actions: list[Action] = []
        try:
            commands = self.codec.decode(payload)
            if self._undecoded or type(commands) is not list:
                self._take_later(commands, actions)
                return actions
            for command in commands:
                if command.method == "pong":
                    self._pong()
                elif (
                    self._waiting
                    or self.budget <= 0
                    or (
                        (self.state is CONNECTING or self._subscribing) and self._must_wait(command)
                    )
                ):
                    self._wait(command)
                else:
                    self._handle(command, actions)
            if self._waiting:
                self._waiting_bytes += len(payload)
        except Disconnect as why:
            self._close(why, actions)
        return actions

    def _pong(self) -> None:
        if not self.awaits_pong:
            raise BAD_REQUEST_CLOSE.fresh()
        self.awaits_pong -= 1

    def _must_wait(self, command: Command) -> bool:
        if self.state is CONNECTING:
            return True
        if not self._subscribing:
            return False
        if command.method != "subscribe":
            return True
        return command.params.channel in self._subscribing

    def _wait(self, command: Command) -> None:
        if self._waiting is None:
            self._waiting = deque()
        if not self._waiting:
            self._waiting_bytes = 0
        self._waiting.append(command)

    def _take_later(self, commands: Iterable[Command], actions: list[Action]) -> None:
        """Decode and handle a message as far as the budget goes."""
        if self._undecoded is None:
            self._undecoded = deque()
        self._undecoded.append(iter(commands))
        self._handle_waiting(actions)

    def _waiting_decoded(self) -> deque[Command] | None:
        """The commands that wait, the next part of what has arrived being decoded if there are none.

        Raises:
            Disconnect: what has arrived is malformed.
        """
        while not self._waiting:
            if not self._undecoded:
                self._waiting = self._undecoded = None
                return None
            part = list(islice(self._undecoded[0], DECODED_AT_ONCE))
            if len(part) < DECODED_AT_ONCE:
                self._undecoded.popleft()
            self._waiting = deque(command for command in part if command.method != "pong")
            for _ in range(len(part) - len(self._waiting)):
                self._pong()
        return self._waiting

    def _handle_waiting(self, actions: list[Action]) -> None:
        """Handle waiting commands until one must wait again."""
        try:
            while self.budget > 0 and (waiting := self._waiting_decoded()):
                if self._must_wait(waiting[0]):
                    break
                self._handle(waiting.popleft(), actions)
        except Disconnect as why:
            self._close(why, actions)

    def _handle(self, command: Command, actions: list[Action]) -> None:
        method = command.method
        self.budget -= 1
        self.commands += 1
        counters = self._counters
        counters.commands[method] += 1
        counters.messages_in += 1
        state = self.state
        if state is not CONNECTED:
            if state is CLOSED:
                return
            if state is not NEW or method != "connect":
                raise BAD_REQUEST_CLOSE.fresh()
        elif method == "connect":
            raise BAD_REQUEST_CLOSE.fresh()
        try:
            self._handlers[method](self, command, actions)
        except ClientError as error:
            self._refuse(command.id, error, actions)

    # --- connect and publish -----------------------------------------------------------------

    def _connect(self, command: Command, actions: list[Action]) -> None:
        request = connect_request(command.params)
        if request.name or request.version:
            self.app_name = _shared(request.name[:_LONGEST_APPLICATION_NAME])
            self.app_version = _shared(request.version[:_LONGEST_APPLICATION_NAME])
        self.state = CONNECTING
        actions.append(Connect(command.id, request))

    def connected(
        self,
        number: int,
        result: dict[str, Any],
        *,
        user: str,
        info: bytes,
        expires_at: int,
        server_side: dict[str, Subscription],
        claims: Claims = ANONYMOUS,
    ) -> list[Action]:
        """The connect has succeeded; `result` is its whole reply."""
        actions: list[Action] = []
        if self.state is not CONNECTING:
            return actions
        self.state = CONNECTED
        self.user, self.info, self.expires_at = user, info, expires_at
        self.claims = claims
        self.channels.update(server_side)
        actions.append(Send(reply(number, "connect", result)))
        self._handle_waiting(actions)
        return actions

    def connect_refused(self, number: int, why: ClientError | Disconnect) -> list[Action]:
        """The connect has failed; waiting commands are dropped."""
        actions: list[Action] = []
        if self.state is not CONNECTING:
            return actions
        self._waiting = self._undecoded = None
        if isinstance(why, Disconnect):
            self._close(why, actions)
        else:
            self.state = REFUSED
            self._refuse(number, why, actions)
        return actions

    def _publish(self, command: Command, actions: list[Action]) -> None:
        channel, data = publish_request(command.params)
        self._pending += 1
        self._pending_bytes += len(data)
        actions.append(Publish(command.id, channel, data))

    def published(self, number: int, error: ClientError | None, size: int) -> list[Action]:
        """A publish of so many bytes has succeeded, or failed with `error`."""
        self._pending -= 1
        self._pending_bytes -= size
        actions: list[Action] = []
        if self.state is CONNECTED:
            if error is None:
                actions.append(Send(reply(number, "publish")))
            else:
                self._refuse(number, error, actions)
        return actions

    # --- the end of a command, or of the connection ------------------------------------------

    def _refuse(self, number: int, error: ClientError, actions: list[Action]) -> None:
        self._counters.client_error(error.code)
        actions.append(Send(error_reply(number, error)))

    def _close(self, why: Disconnect, actions: list[Action]) -> None:
        if self.state is CLOSED:
            return
        self.state = CLOSED
        self._waiting = self._undecoded = None
        if why.is_client_fault:
            self._counters.client_error(why.code)
        # Its traceback holds `actions`: a cycle, with what the client has sent.
        actions.append(Close(why.with_traceback(None)))
