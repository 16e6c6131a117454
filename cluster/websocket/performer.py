"""Passes a client's messages to its state machine and performs the actions that come back, in order.

Connects and publishes are performed here; a subclass, `client`, has the other actions. A client whose
commands come faster than `client.command_rate_limit` is slowed down here: a command is answered with 111
and the connection is not read for a while, longer each time; if the client goes on all the same, it is
closed with 3013.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, ClassVar, TypeVar

from cluster import expiry_clock
from cluster.application import ApplicationClient
from cluster.command_params import NO_HEADERS
from cluster.connection import Action, Connection, actions
from cluster.errors import (
    BAD_REQUEST_CLOSE,
    INTERNAL,
    SERVER_ERROR,
    TOO_MANY_REQUESTS_CLOSE,
    ClientError,
    Disconnect,
)
from cluster.log import get_logger
from cluster.metrics.counters import Counters
from cluster.node.node import Connected, Node
from cluster.node.subscribe import Subscribed
from cluster.sessions import Session
from cluster.turns import turns_of
from cluster.websocket.command_rate import MOST_REFUSALS, CommandRate
from cluster.websocket.frames import FrameProtocol

log = get_logger()

T = TypeVar("T")


class ActionPerformer(FrameProtocol):
    """A socket and the state machine of its connection.

    Args:
        url_session: the session that the URL asks for, "" for none.

    Attributes:
        connection: the state machine.
        session: of the connected client.
        headers: of its handshake, in lower case: those that the application reads.
    """

    __slots__ = (
        "_awaits_answers", "_counted", "_counters", "_full_at", "_is_congested", "_node", "_rate", "_refusals", "_refused_until", "_url_session",
        "connection", "emulated_headers", "headers", "session",
    )  # fmt: skip

    _performers: ClassVar[Mapping[type, Callable[[Any, Any], None]]]

    def __init__(
        self,
        connection: Connection,
        node: Node,
        counters: Counters,
        rate: CommandRate,
        url_session: str,
    ) -> None:
        super().__init__()
        self._node = node
        self._counters = counters
        self._counted = 0
        self._rate = rate
        self._full_at = self._refused_until = 0.0
        self._refusals = 0
        self._is_congested = self._awaits_answers = False
        connection.budget = rate.slice
        self.connection = connection
        self.headers: Mapping[str, str] = NO_HEADERS
        self.emulated_headers: Mapping[str, str] = NO_HEADERS
        self.session: Session | None = None
        self._url_session = url_session

    def data_arrived(self) -> None:
        # Commands that come in several turns need not wait for one; where others do, nobody overtakes them.
        if (
            self.connection.budget <= self._rate.slice >> 1
            and not turns_of(asyncio.get_running_loop()).are_taken
            and self._takes_slice(time.monotonic())
        ):
            self.connection.budget = self._rate.slice

    def receive(self, data: bytes) -> None:
        self._counters.bytes_in += len(data)
        connection = self.connection
        self.perform(connection.receive(data))
        self._count()
        if connection.is_congested:
            # Without a budget it waits for its turn only.
            if connection.budget > 0:
                self._note_congestion()
            self.pause()

    def receive_binary(self, data: bytes) -> None:
        if self.connection.codec.is_json:
            self.fail(BAD_REQUEST_CLOSE)
        else:
            self.receive(data)

    def control_frame(self) -> None:
        """Count a ping or pong frame as a command."""
        connection = self.connection
        connection.budget -= 1
        if connection.budget <= 0:
            self.pause()
            self.schedule_turn()

    def next_turn(self) -> None:
        connection = self.connection
        if connection.awaits_answers:
            self._wait_for_answers()
            return
        if connection.budget > 0:
            self.perform(connection.resume())
        elif self._take_slice_or_refuse():
            self.perform(connection.next_turn(self._rate.slice))
        self._count()

    def _wait_for_answers(self) -> None:
        """Handle and read nothing more until commands in progress are answered: `perform` then goes on."""
        self.pause()
        self._awaits_answers = self._is_turn_scheduled = True
        self._note_congestion()

    def _note_congestion(self) -> None:
        if not self._is_congested:
            self._is_congested = True
            self._counters.throttled["commands"] += 1

    def _take_slice_or_refuse(self) -> bool:
        """Take the tokens of the next slice; without them the connection is delayed or closed."""
        now, rate, connection = time.monotonic(), self._rate, self.connection
        if rate.forgets(self._refused_until, now):
            self._refusals = 0
        if self._takes_slice(now):
            return True
        # Control frames were handled although the budget was spent.
        self._full_at = rate.emptied(rate.full_at(self._full_at, -connection.budget, now), now)
        connection.budget = 0
        self._refusals += 1
        self._counters.throttled["command_rate"] += 1
        if self._refusals > MOST_REFUSALS:
            self.perform(connection.disconnect(TOO_MANY_REQUESTS_CLOSE))
        else:
            delay = rate.delay(self._full_at, self._refusals, now)
            self._refused_until = max(self._full_at, now + delay)
            self.schedule_turn(delay)
            self.perform(connection.too_many_requests())
        return False

    def _takes_slice(self, now: float) -> bool:
        """Take tokens for what is missing of a slice, if there are so many."""
        rate = self._rate
        full_at = rate.full_at(self._full_at, rate.slice - self.connection.budget, now)
        if not rate.allows(full_at, now):
            return False
        self._full_at = full_at
        return True

    def _count(self) -> None:
        """Add the commands handled since the last call to the session's messages."""
        session, commands = self.session, self.connection.commands
        if session is not None:
            session.received += commands - self._counted
            self._counted = commands

    def perform(self, wanted: list[Action]) -> None:
        """Perform the actions that the state machine returned, in order.

        Successive replies are written together: a system call costs more than everything else here.
        """
        frames: list[bytes] = []
        for action in wanted:
            if type(action) is actions.Send:
                frames.append(self._frame(action))
            elif type(action) is actions.Subscribe:
                self._subscribe(action, frames)
            else:
                if frames:
                    self._write_all(frames)
                self._performers[type(action)](self, action)
        if frames:
            self._write_all(frames)
        connection = self.connection
        if self._awaits_answers:
            if not connection.awaits_answers:
                self._awaits_answers = self._is_turn_scheduled = False
                self.schedule_turn()
        elif connection.budget <= 0 and connection.has_waiting:
            self.schedule_turn()
        elif self._is_paused and not self._is_turn_scheduled and not connection.is_congested:
            self._is_congested = False
            self.resume()

    def _frame(self, action: actions.Send) -> bytes:
        frame = self.connection.codec.frame(action.payload)
        self._counters.messages_out += 1
        self._counters.bytes_out += len(frame)
        return frame

    def _write_all(self, frames: list[bytes]) -> None:
        self.write(frames[0] if len(frames) == 1 else b"".join(frames))
        frames.clear()

    def _publish(self, action: actions.Publish) -> None:
        done = partial(self._published, action.id, len(action.data), time.monotonic())
        application = self._node.application
        if application is not None and application.handles_publishing:
            self._run(self._do_publish(action, done, application.handle(self)))
            return
        self._node.commands.publish(self.connection, action.channel, action.data, done)

    async def _do_publish(
        self,
        action: actions.Publish,
        done: Callable[[ClientError | None], None],
        handle: ApplicationClient,
    ) -> None:
        commands = self._node.commands
        try:
            await commands.publish_decided(
                self.connection, handle, action.channel, action.data, done
            )
        except ClientError as error:
            done(error)
        except Disconnect as why:
            self.perform(self.connection.answered(action.id, why))

    def _published(self, number: int, size: int, since: float, error: ClientError | None) -> None:
        self._counters.command_duration["publish"].observe(time.monotonic() - since)
        self.perform(self.connection.published(number, error, size))

    def _connect(self, action: actions.Connect) -> None:
        self._opening = None
        self._run(self._do_connect(action))

    async def _do_connect(self, action: actions.Connect) -> None:
        since = time.monotonic()
        outcome = await self._outcome(
            "connect_failed", self._node.connect(self, action.request, self._url_session)
        )
        self._counters.command_duration["connect"].observe(time.monotonic() - since)
        if isinstance(outcome, Connected):
            self._enter(action.id, outcome)
        else:
            self.perform(self.connection.connect_refused(action.id, outcome))

    def _enter(self, number: int, connected: Connected) -> None:
        self.session = connected.session
        try:
            wanted = self._accepted(number, connected)
            is_open = bool(wanted)
            if connected.subscribed:
                # They are joined after the reply, and before anything else is sent.
                self.perform(wanted[:1])
                del wanted[:1]
        except BaseException:
            self._abort_all(connected.subscribed)
            raise
        if not is_open:
            # The connection was closed in the meantime.
            self._abort_all(connected.subscribed)
            self._node.disconnected(self, may_end_session=not connected.session.is_resumed)
            return
        if connected.subscribed:
            self._join(connected.subscribed)
            if self._is_closing:
                return
        # All but the connect itself.
        self._counted = 1
        self._count()
        self.perform(wanted)
        if connected.claims.expires_at:
            self.watch_expiry()
        self._node.entered(self)

    def _accepted(self, number: int, connected: Connected) -> list[Action]:
        """The reply to the connect first, and what waited for it; nothing if the connection was closed."""
        claims = connected.claims
        return self.connection.connected(
            number,
            connected.result,
            user=claims.user,
            info=claims.info,
            expires_at=claims.expires_at and expiry_clock.from_unix(claims.expires_at),
            claims=claims,
            server_side={
                one.channel: actions.Subscription(
                    one.is_positioned,
                    is_server_side=True,
                    details=one.details,
                    source=one.source,
                )
                for one in connected.subscribed
            },
        )

    def _join(self, subscribed: list[Subscribed]) -> None:
        for one in subscribed:
            if self._is_closing:
                # A join has found that publications are lost.
                self._abort(one)
            else:
                self._node.channels.join(one.joining, self, self.write)

    def _abort_all(self, subscribed: list[Subscribed]) -> None:
        for one in subscribed:
            self._abort(one)

    def _abort(self, subscribed: Subscribed) -> None:
        """Give a prepared subscription up: the connection was closed before it could join."""
        joining = subscribed.joining
        self._node.channels.abort(joining.channel, joining.start)

    def watch_expiry(self) -> None:
        """Look again when the connection or a subscription expires."""
        raise NotImplementedError

    def _subscribe(self, action: actions.Subscribe, frames: list[bytes]) -> None:
        """Subscribe; `frames` are still to be written before the reply."""
        raise NotImplementedError

    # --- what waits for the store ------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._node.run(self._guarded(work))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            self._counters.errors["internal"] += 1
            log.exception("client_failed", client=self.connection.client)
            self.perform(self.connection.disconnect(SERVER_ERROR))

    async def _outcome(
        self, event: str, work: Coroutine[Any, Any, T]
    ) -> T | ClientError | Disconnect:
        """Return the result or the refusal; an unexpected exception is logged and becomes error 100."""
        try:
            return await work
        except (ClientError, Disconnect) as why:
            return why
        except Exception:
            log.exception(event, client=self.connection.client)
            return self._failed()

    def _failed(self) -> ClientError:
        """Count an unexpected exception; returns the error for the client."""
        self._counters.errors["internal"] += 1
        return INTERNAL
