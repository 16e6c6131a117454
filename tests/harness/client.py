"""A Centrifuge JSON v2 client of our own that behaves as the SDKs do: back-off, positions, recovery.

It is written from the protocol page and shares no code with the server. Publications arrive by callback,
without an await or a task per message, so that two thousand clients fit into one process.
Guarantees: after `start` it reconnects until `close` or a terminal code; a publish is sent once and never
repeated; a position moves only with a publication that was delivered.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.harness.wire import HandshakeLost, HandshakeRefused, Wire, open_wire

Json = dict[str, Any]
COMMAND_TIMEOUT = 5.0
MAX_SERVER_PING_DELAY = 10.0
RECONNECT_MAX = 20.0
JS_RECONNECT_MIN, PYTHON_RECONNECT_MIN = 0.5, 0.1


class ReplyError(Exception):
    """The server answered a command with an error."""

    def __init__(self, error: Json) -> None:
        super().__init__(f"{error['code']} {error['message']}")
        self.code: int = error["code"]
        self.is_temporary: bool = error.get("temporary", False)


class NoReply(Exception):
    """The connection ended, or the time was up, before a reply came: the outcome is unknown."""


def is_terminal(code: int | None) -> bool:
    """Whether a client must not reconnect after this close code (protocol page 5.2)."""
    return code is not None and (3500 <= code < 4000 or 4500 <= code < 5000)


def _may_retry(error: Json) -> bool:
    """Whether the SDKs try again after this error (protocol page 5.1)."""
    code: int = error["code"]
    return code < 100 or code == 109 or bool(error.get("temporary"))


@dataclass(slots=True)
class Subscription:
    """One channel of one client, across reconnects."""

    channel: str
    on_publication: Callable[[Subscription, Json], None]
    on_subscribed: Callable[[Subscription, Json], None] | None = None
    state: str = "subscribing"
    is_recoverable: bool = False
    offset: int = 0
    epoch: str = ""
    attempts: int = 0
    codes: list[int] = field(default_factory=list)
    command: int = 0

    def request(self) -> Json:
        """Build the subscribe request, with the position when there is one."""
        request: Json = {"channel": self.channel, "flag": 1}
        if self.is_recoverable:
            request["recover"] = True
            if self.offset:
                request["offset"] = self.offset
            if self.epoch:
                request["epoch"] = self.epoch
        return request

    def take(self, publication: Json) -> None:
        """Deliver one publication and move the position."""
        if offset := publication.get("offset"):
            self.offset = offset
        self.on_publication(self, publication)

    def take_result(self, result: Json) -> None:
        """Apply a subscribe reply."""
        self.state, self.attempts = "subscribed", 0
        self.is_recoverable = result.get("recoverable", False)
        self.epoch = result.get("epoch", "")
        self.offset = result.get("offset", 0)
        if self.on_subscribed is not None:
            self.on_subscribed(self, result)
        for publication in result.get("publications", ()):
            self.take(publication)


@dataclass(slots=True)
class History:
    """What happened to one client's connections, with monotonic times."""

    attempts: int = 0
    connects: list[float] = field(default_factory=list)
    ends: list[tuple[float, int | None]] = field(default_factory=list)
    refusals: Counter[int] = field(default_factory=Counter)
    connect_errors: Counter[int] = field(default_factory=Counter)

    def codes(self, since: float = 0.0) -> Counter[int | None]:
        """Count close codes; None is an end without a close frame."""
        return Counter(code for when, code in self.ends if when >= since)


class Client:
    """One client: `start`, `subscribe`, `publish`, `close`."""

    def __init__(
        self,
        port: int,
        *,
        name: str = "client",
        path: str = "/connection/websocket",
        reconnect_min: float = JS_RECONNECT_MIN,
        connect_request: Json | None = None,
    ) -> None:
        self.port = port
        self.name = name
        self.path = path
        self.reconnect_min = reconnect_min
        self.connect_request = connect_request or {}
        self.history = History()
        self.subscriptions: dict[str, Subscription] = {}
        self.result: Json = {}
        self.messages: list[Json] = []
        self.joins_and_leaves: list[Json] = []
        self.is_connected = False
        self.is_terminated = False
        self._up = asyncio.Event()
        self._gone = asyncio.Event()
        self._wire: Wire | None = None
        self._wanted = False
        self._attempt = 0
        self._next_id = 0
        self._pending: dict[int, Callable[[Json | None], None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._ping_timer: asyncio.TimerHandle | None = None
        self._last_frame = 0.0

    # -- what tests call ---------------------------------------------------------------------

    async def start(self, timeout: float = 30.0) -> Client:
        """Begin, and return once connected."""
        self.begin()
        await self.connected(timeout)
        return self

    def begin(self) -> None:
        """Begin without waiting."""
        self._wanted = True
        self._task = asyncio.create_task(self._live())

    async def connected(self, timeout: float = 30.0) -> None:
        """Wait until a connect reply has come on the present connection."""
        async with asyncio.timeout(timeout):
            await self._up.wait()

    async def disconnected(self, timeout: float = 30.0) -> int | None:
        """Wait for the next end of the connection; returns its code."""
        async with asyncio.timeout(timeout):
            await self._gone.wait()
        return self.history.ends[-1][1]

    def subscribe(
        self,
        channel: str,
        on_publication: Callable[[Subscription, Json], None],
        on_subscribed: Callable[[Subscription, Json], None] | None = None,
    ) -> Subscription:
        """Subscribe to a channel, now and after every reconnect."""
        subscription = Subscription(channel, on_publication, on_subscribed)
        self.subscriptions[channel] = subscription
        if self.is_connected:
            self._send([self._subscribe_command(subscription)])
        return subscription

    async def publish(self, channel: str, data: Any) -> None:
        """Publish once.

        Raises:
            ReplyError: the server answered with an error.
            NoReply: it is unknown whether the server accepted it.
        """
        await self.call("publish", {"channel": channel, "data": data})

    async def call(self, method: str, request: Json, timeout: float = COMMAND_TIMEOUT) -> Json:
        """Send one command and return its result."""
        if not self.is_connected:
            raise NoReply("not connected, not sent")
        future: asyncio.Future[Json | None] = asyncio.get_running_loop().create_future()

        def settle(document: Json | None) -> None:
            if not future.done():
                future.set_result(document)

        command = self._command(method, request, settle)
        self._send([command])
        try:
            async with asyncio.timeout(timeout):
                reply = await future
        except TimeoutError:
            raise NoReply(f"no reply within {timeout} s") from None
        finally:
            self._pending.pop(command["id"], None)
        if reply is None:
            raise NoReply("the connection ended first")
        if error := reply.get("error"):
            raise ReplyError(error)
        result: Json = reply[method]
        return result

    def send(self, payload: bytes) -> None:
        """Write one text message as it is."""
        if self._wire is not None:
            self._wire.send_text(payload)

    @property
    def wire(self) -> Wire:
        """The present WebSocket, for tests that misuse it."""
        assert self._wire is not None
        return self._wire

    @property
    def is_whole(self) -> bool:
        """True when connected and in every wanted channel."""
        return self.is_connected and all(
            subscription.state == "subscribed" for subscription in self.subscriptions.values()
        )

    async def close(self) -> None:
        """Close the connection and do not reconnect."""
        self._wanted = False
        if self._wire is not None:
            self._wire.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._forget()

    # -- the connection ------------------------------------------------------------------------

    async def _live(self) -> None:
        while True:
            await self._connect_once()
            if self.is_terminated or not self._wanted:
                return
            await asyncio.sleep(self._back_off())

    def _back_off(self) -> float:
        window = self.reconnect_min * 2.0 ** min(self._attempt, 31)
        self._attempt += 1
        return min(RECONNECT_MAX, self.reconnect_min + random.random() * window)

    async def _connect_once(self) -> None:
        self.history.attempts += 1
        try:
            self._wire = await open_wire(
                self.port, path=self.path, on_message=self._message, on_end=self._ended
            )
        except HandshakeRefused as refused:
            self.history.refusals[refused.status] += 1
            return
        except (HandshakeLost, OSError, TimeoutError):
            self.history.refusals[0] += 1
            return
        self._gone.clear()
        self._send_connect()
        await self._wire.ended.wait()

    def _send_connect(self) -> None:
        """Send connect and all subscriptions in one frame, as the JS SDK does."""
        request = {"name": "ledger", **self.connect_request}
        commands = [self._command("connect", request, self._connect_answered)]
        for subscription in self.subscriptions.values():
            if subscription.state != "unsubscribed":
                subscription.state = "subscribing"
                commands.append(self._subscribe_command(subscription))
        self._later(COMMAND_TIMEOUT, self._give_up_connect, len(self.history.ends))
        self._send(commands)

    def _give_up_connect(self, ends: int) -> None:
        is_same_connection = ends == len(self.history.ends)
        if is_same_connection and not self.is_connected and self._wire is not None:
            self._wire.close()

    def _connect_answered(self, reply: Json | None) -> None:
        if reply is None:
            return
        if error := reply.get("error"):
            self.history.connect_errors[error["code"]] += 1
            self.is_terminated = not _may_retry(error)
            self.wire.close()
            return
        self.result = reply["connect"]
        self.history.connects.append(time.monotonic())
        self._attempt = 0
        self.is_connected = True
        self._up.set()
        self._watch_pings()

    def _watch_pings(self) -> None:
        """Close when the server sends nothing for ping + 10 s, as the SDKs do."""
        ping = self.result.get("ping", 0)
        if not ping:
            return
        limit = ping + MAX_SERVER_PING_DELAY
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        silent = time.monotonic() - self._last_frame
        if silent >= limit:
            self.wire.close()
            return
        loop = asyncio.get_running_loop()
        self._ping_timer = loop.call_later(limit - silent, self._watch_pings)

    def _ended(self, code: int | None, reason: str) -> None:
        self.history.ends.append((time.monotonic(), code))
        if is_terminal(code) or code == 1009:
            self.is_terminated = True
        self._forget()

    def _forget(self) -> None:
        self.is_connected = False
        self._up.clear()
        self._gone.set()
        for handle in (*self._timers, self._ping_timer):
            if handle is not None:
                handle.cancel()
        self._timers.clear()
        pending, self._pending = self._pending, {}
        for settle in pending.values():
            settle(None)
        for subscription in self.subscriptions.values():
            if subscription.state == "subscribed":
                subscription.state = "subscribing"

    def _later(self, delay: float, call: Callable[..., None], *args: Any) -> None:
        self._timers.add(asyncio.get_running_loop().call_later(delay, call, *args))

    # -- frames ------------------------------------------------------------------------------

    def _send(self, commands: list[Json]) -> None:
        if self._wire is not None:
            self._wire.send_text(b"\n".join(orjson.dumps(command) for command in commands))

    def _message(self, opcode: int, payload: bytes) -> None:
        self._last_frame = time.monotonic()
        for line in payload.split(b"\n"):
            if line == b"{}":
                self._pong()
            elif line:
                self._document(orjson.loads(line))

    def _pong(self) -> None:
        if self.result.get("pong"):
            self.send(b"{}")

    def _document(self, document: Json) -> None:
        push = document.get("push")
        if push is not None:
            self._pushed(push)
            return
        settle = self._pending.pop(document["id"], None)
        if settle is not None:
            settle(document)

    def _pushed(self, push: Json) -> None:
        subscription = self.subscriptions.get(push.get("channel", ""))
        if "pub" in push:
            if subscription is not None:
                subscription.take(push["pub"])
        elif "unsubscribe" in push and subscription is not None:
            self._unsubscribed(subscription, push["unsubscribe"]["code"])
        elif "join" in push or "leave" in push:
            self.joins_and_leaves.append(push)
        elif "message" in push:
            self.messages.append(push["message"])

    def _command(self, method: str, request: Json, settle: Callable[[Json | None], None]) -> Json:
        self._next_id += 1
        self._pending[self._next_id] = settle
        return {"id": self._next_id, method: request}

    def _subscribe_command(self, subscription: Subscription) -> Json:
        answered = functools.partial(self._subscribe_answered, subscription)
        command = self._command("subscribe", subscription.request(), answered)
        subscription.command = command["id"]
        self._later(COMMAND_TIMEOUT, self._give_up_subscribe, subscription, command["id"])
        return command

    def _give_up_subscribe(self, subscription: Subscription, command: int) -> None:
        """Reconnect when a subscribe reply does not come, as the SDKs do."""
        is_waiting = subscription.state == "subscribing" and subscription.command == command
        if is_waiting and self._wire is not None:
            self._wire.close()

    def _subscribe_answered(self, subscription: Subscription, document: Json | None) -> None:
        if document is None:
            return
        error = document.get("error")
        if error is None:
            subscription.take_result(document["subscribe"])
            return
        subscription.codes.append(error["code"])
        subscription.command = 0
        if _may_retry(error):
            self._resubscribe_later(subscription)
        else:
            subscription.state = "unsubscribed"

    def _unsubscribed(self, subscription: Subscription, code: int) -> None:
        subscription.codes.append(code)
        if code >= 2500:
            subscription.state = "subscribing"
            self._resubscribe(subscription)
        else:
            subscription.state = "unsubscribed"

    def _resubscribe_later(self, subscription: Subscription) -> None:
        window = JS_RECONNECT_MIN * 2.0 ** min(subscription.attempts, 31)
        subscription.attempts += 1
        delay = min(RECONNECT_MAX, JS_RECONNECT_MIN + random.random() * window)
        self._later(delay, self._resubscribe, subscription)

    def _resubscribe(self, subscription: Subscription) -> None:
        if self.is_connected and subscription.state == "subscribing":
            self._send([self._subscribe_command(subscription)])
