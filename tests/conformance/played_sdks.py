"""Two clients that send what the SDKs for Dart and Swift send, and do with the answers what these do.

They are not the SDKs, which cannot be built where the tests run. Written from what the sources of centrifuge-dart
and centrifuge-swift do on the wire; see `test_dart_and_swift.py` for the facts. Replies are read by
`protobuf_frames`, which is stricter than both. No timer watches for pings that do not come.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from centrifuge.fossil import apply_delta

from tests.conformance.played_commands import Fields, sized_command
from tests.conformance.played_wire import Kind, frame_of, shake_hands
from tests.conformance.protobuf_frames import replies_of
from tests.conformance.sdk_clients import Events
from tests.harness.wire import BINARY, CLOSE, PING, PONG, frame

_WITHIN_SECONDS = 10.0
#: Both wait between half a second and one before they connect again.
_LEAST_DELAY = 0.5
#: The bits of `flag` in a subscribe: numbers for channel names are welcome, and error 112 rather than a gap.
_COMPACTION, _REJECT_UNRECOVERED = 1, 2
TOKEN_EXPIRED, UNRECOVERABLE, STATE_INVALIDATED = 109, 112, (2502, 3014)
#: No stream has this epoch: what the client knew is no longer true.
_NO_EPOCH = "_"


def comes_back(code: int) -> bool:
    """Whether the SDKs connect again after this close code, or this code of a disconnect push."""
    return code < 3500 or code >= 5000 or 4000 <= code < 4500


@dataclass
class Subscription:
    """A subscription of the client, with the position that it would recover from.

    Attributes:
        tokens: gives a new token.
        states: gives the position of the state that the application has loaded.
        asks: for a position, for recovery, and for joins and leaves.
        tags: a filter, as fields of `FilterNode`.
    """

    channel: str
    tokens: Callable[[], str] | None = None
    states: Callable[[], tuple[int, str]] | None = None
    asks: bool = False
    has_delta: bool = False
    tags: Fields | None = None
    token: str = ""
    position: tuple[int, str] | None = None
    is_subscribed: bool = False
    are_deltas: bool = False
    last: bytes | None = None
    deltas: int = 0
    #: Without it, the token is not refreshed: the application could not in time.
    is_refreshed: bool = True

    def fields(self) -> Fields:
        """The subscribe request as both SDKs set it."""
        if self.states is not None and self.position is None:
            self.position = self.states()
        if self.tokens is not None and not self.token:
            self.token = self.tokens()
        fields: Fields = [("channel", self.channel), ("token", self.token)]
        if self.position is not None:
            offset, epoch = self.position
            fields += [("recover", True), ("epoch", epoch), ("offset", offset)]
        asked = ("positioned", "recoverable", "join_leave")
        fields += [(name, self.asks) for name in asked]
        if self.has_delta:
            fields.append(("delta", "fossil"))
        if self.tags is not None:
            fields.append(("tf", self.tags))
        flag = _COMPACTION | (_REJECT_UNRECOVERED if self.states is not None else 0)
        return [*fields, ("flag", flag)]

    def data_of(self, publication: Any) -> bytes:
        """The data; a delta without what it is made from ends an application of either SDK."""
        data = bytes(publication.data)
        if not self.are_deltas:
            assert not publication.delta
            return data
        if publication.delta:
            assert self.last is not None
            data = bytes(apply_delta(self.last, data))
            self.deltas += 1
        self.last = data
        return data


@dataclass
class Player:
    """One client. `events` has what the SDK would tell its application."""

    kind: Kind
    port: int
    tokens: Callable[[], str]
    answers_pings: bool = True
    events: Events = field(default_factory=Events)
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    #: Server-side subscriptions that can be recovered or not, with their positions.
    server_side: dict[str, tuple[bool, int, str]] = field(default_factory=dict)
    token: str = ""
    ids: int = 0
    _writer: asyncio.StreamWriter | None = None
    _waiting: dict[int, Callable[[Any], None]] = field(default_factory=dict)
    _timers: list[asyncio.TimerHandle] = field(default_factory=list)
    _verdict: tuple[int, str] | None = None
    _has_pong: bool = False
    _is_over: bool = False

    async def run(self) -> None:
        """Connect, and again after each end that is not the last."""
        while True:
            self.events.add({"event": "connecting"})
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._connection()
            code, reason = self._verdict or (1006, "transport closed")
            self._verdict = None
            for timer in self._timers:
                timer.cancel()
            self._timers.clear()
            self._waiting.clear()
            if code in STATE_INVALIDATED:
                self._invalidate()
            for subscription in self.subscriptions.values():
                subscription.is_subscribed = False
            self.events.add({"event": "closed", "code": code, "reason": reason})
            if self._is_over or not comes_back(code):
                self.events.add({"event": "disconnected", "code": code})
                return
            await asyncio.sleep(_LEAST_DELAY * (1 + random.random()))

    async def _connection(self) -> None:
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            headers = await shake_hands(reader, self._writer, self.kind.handshake)
            assert headers["sec-websocket-protocol"] == "centrifuge-protobuf"
            if not self.kind.counts_on:
                self.ids = 0
            self._enter()
            while True:
                opcode, payload = await frame_of(reader)
                if opcode == CLOSE:
                    self._closed(payload)
                    return
                if opcode == PING:
                    self._writer.write(frame(PONG, payload))
                    continue
                assert opcode == BINARY
                for reply in replies_of(payload):
                    self._on_reply(reply)
        finally:
            self._writer.transport.abort()
            self._writer = None

    def _closed(self, payload: bytes) -> None:
        assert self._writer is not None
        self._writer.write(frame(CLOSE, payload[:2]))
        if self._verdict is None:
            (code,) = struct.unpack("!H", payload[:2])
            self._verdict = (code, payload[2:].decode())

    def _leave(self, code: int, reason: str) -> None:
        """End the connection for a reason of its own: the code is not what goes over the wire."""
        assert self._writer is not None
        self._verdict = (code, reason)
        self._writer.write(frame(CLOSE, self.kind.goodbye))

    def _invalidate(self) -> None:
        self.token = ""
        for subscription in self.subscriptions.values():
            invalidate(subscription)
        self.server_side = {name: (one[0], 0, _NO_EPOCH) for name, one in self.server_side.items()}

    # --- commands ----------------------------------------------------------------------------

    def say(self, method: str, fields: Fields, then: Callable[[Any], None] | None = None) -> None:
        """Send one command in a message of its own; without `then` it has no id."""
        assert self._writer is not None
        number = 0
        if then is not None:
            self.ids += 1
            number = self.ids
            self._waiting[number] = then
        encoded = sized_command(number, method, fields, self.kind.writes_defaults)
        self._writer.write(frame(BINARY, encoded))

    async def ask(self, method: str, *fields: tuple[str, Any]) -> Any:
        """Send a command and wait for the reply."""
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.say(method, list(fields), reply.set_result)
        return await asyncio.wait_for(reply, _WITHIN_SECONDS)

    def _enter(self) -> None:
        self.token = self.token or self.tokens()
        subs: list[tuple[str, Any]] = [
            (
                "subs",
                [
                    ("key", channel),
                    ("value", [("recover", recovers), ("epoch", epoch), ("offset", offset)]),
                ],
            )
            for channel, (recovers, offset, epoch) in self.server_side.items()
        ]
        named = [("name", self.kind.name), ("version", "")]
        self.say("connect", [("token", self.token), *subs, *named], self._connected)

    def _connected(self, reply: Any) -> None:
        if reply.HasField("error"):
            if reply.error.code == TOKEN_EXPIRED:
                self.token = ""
            self._is_over = reply.error.code != TOKEN_EXPIRED and not reply.error.temporary
            self._leave(reply.error.code, reply.error.message)
            return
        result = reply.connect
        self._has_pong = result.pong
        if result.expires:
            self._after(result.ttl, self._refresh)
        for channel, one in result.subs.items():
            self.server_side[channel] = (one.recoverable, one.offset, one.epoch)
            facts = {"recovered": one.recovered, "was_recovering": one.was_recovering}
            self.events.add({"event": "server_subscribed", "channel": channel, **facts})
            for publication in one.publications:
                self._published(channel, publication)
        for channel in self.server_side.keys() - result.subs.keys():
            del self.server_side[channel]
            self.events.add({"event": "server_unsubscribed", "channel": channel})
        self.events.add({"event": "connected", "id": result.client, "ping": result.ping})
        for subscription in self.subscriptions.values():
            self.subscribe(subscription)

    def subscribe(self, subscription: Subscription) -> None:
        """Subscribe now; a subscription that the client keeps is subscribed again by itself."""
        self.subscriptions[subscription.channel] = subscription
        self.say(
            "subscribe", subscription.fields(), lambda reply: self._subscribed(subscription, reply)
        )

    def _subscribed(self, subscription: Subscription, reply: Any) -> None:
        channel = subscription.channel
        if reply.HasField("error"):
            code = reply.error.code
            self.events.add({"event": "subscribe_error", "channel": channel, "code": code})
            if code == UNRECOVERABLE and subscription.states is not None:
                subscription.position = subscription.last = None
            elif code == TOKEN_EXPIRED:
                subscription.token = ""
            elif not reply.error.temporary:
                del self.subscriptions[channel]
                return
            self._after(_LEAST_DELAY, lambda: self.subscribe(subscription))
            return
        result = reply.subscribe
        if result.recoverable:
            subscription.position = (result.offset, result.epoch)
        subscription.are_deltas = result.delta
        subscription.is_subscribed = True
        if result.expires and subscription.is_refreshed:
            self._after(result.ttl, lambda: self._refresh_subscription(subscription))
        names = ("recovered", "was_recovering", "recoverable", "positioned", "delta")
        facts = {name: getattr(result, name) for name in names}
        self.events.add({"event": "subscribed", "channel": channel, **facts})
        for publication in result.publications:
            self._published(channel, publication)

    def _after(self, seconds: float, then: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, then))

    def _refresh(self) -> None:
        self.token = self.tokens()
        self.say("refresh", [("token", self.token)], self._refreshed)

    def _refreshed(self, reply: Any) -> None:
        result = reply.refresh
        self.events.add({"event": "refreshed", "error": reply.error.code, "ttl": result.ttl})
        if result.expires:
            self._after(result.ttl, self._refresh)

    def _refresh_subscription(self, subscription: Subscription) -> None:
        assert subscription.tokens is not None
        subscription.token = subscription.tokens()
        fields: Fields = [("channel", subscription.channel), ("token", subscription.token)]

        def refreshed(reply: Any) -> None:
            result = reply.sub_refresh
            self.events.add({"event": "sub_refreshed", "error": reply.error.code})
            if result.expires:
                self._after(result.ttl, lambda: self._refresh_subscription(subscription))

        self.say("sub_refresh", fields, refreshed)

    # --- replies -----------------------------------------------------------------------------

    def _on_reply(self, reply: Any) -> None:
        if reply.id:
            self._waiting.pop(reply.id)(reply)
        elif not reply.HasField("push"):
            self.events.add({"event": "ping"})
            if self._has_pong and self.answers_pings:
                self.say("", [])
        else:
            self._pushed(reply.push)

    def _pushed(self, push: Any) -> None:
        channel = push.channel
        if push.HasField("pub"):
            self._published(channel, push.pub)
        elif push.HasField("unsubscribe"):
            self._unsubscribed(channel, push.unsubscribe.code)
        elif push.HasField("subscribe"):
            one = push.subscribe
            self.server_side[channel] = (one.recoverable, one.offset, one.epoch)
            self.events.add({"event": "server_subscribed", "channel": channel})
        elif push.HasField("message"):
            self.events.add({"event": "message", "data": bytes(push.message.data)})
        else:
            kind = push.ListFields()[-1][0].name
            self.events.add({"event": kind, "channel": channel})

    def _published(self, channel: str, publication: Any) -> None:
        offset, data = publication.offset, bytes(publication.data)
        subscription = self.subscriptions.get(channel)
        if subscription is not None:
            assert subscription.is_subscribed
            data = subscription.data_of(publication)
            if offset and subscription.position is not None:
                subscription.position = (offset, subscription.position[1])
        else:
            recovers, last, epoch = self.server_side[channel]
            self.server_side[channel] = (recovers, offset if recovers else last, epoch)
        self.events.add(
            {"event": "publication", "channel": channel, "data": data, "offset": offset}
        )

    def _unsubscribed(self, channel: str, code: int) -> None:
        self.events.add({"event": "unsubscribed", "channel": channel, "code": code})
        subscription = self.subscriptions.get(channel)
        if subscription is None:
            del self.server_side[channel]
            return
        subscription.is_subscribed = False
        if code < 2500:
            del self.subscriptions[channel]
            return
        if code in STATE_INVALIDATED:
            invalidate(subscription)
        self.subscribe(subscription)


def invalidate(subscription: Subscription) -> None:
    """Forget what the server said to be no longer true."""
    subscription.last = None
    if subscription.tokens is not None:
        subscription.token = ""
    if subscription.position is not None:
        subscription.position = (0, _NO_EPOCH)


@asynccontextmanager
async def playing(player: Player) -> AsyncIterator[Player]:
    """Run a client until the block ends; what it could not understand is raised there."""
    task = asyncio.create_task(player.run())
    try:
        await player.events.seen("connecting")
        yield player
    finally:
        failure = task.exception() if task.done() else None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if failure is not None:
            raise failure
