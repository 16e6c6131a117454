"""The control channel: from one worker to all workers of all machines that share the store.

A *command* ("disconnect this user") is kept for a minute, so a worker whose link to the store broke reads
what it missed. Each worker runs commands one at a time, in the order of the stream. A *question* ("who is
connected?") is not kept; its answers come back on a channel of the worker that asked, within a time. A
*report* ("I have so many connections") is neither kept nor answered.

Guarantees
- Whoever is subscribed at the store counts as alive: a question waits for that many answers. Those that
  do not come in time are counted, logged and reported with the result.
- Messages have a version and a kind. One that this version does not know is counted and ignored, because
  two versions share the store during a roll. Members that it does not know are ignored.
- What a message may hold, what may wait and what runs at a time is bounded by the constants below.
- If a worker cannot read what it missed, because it was away for too long or the store has lost it, that is
  counted and logged. After a failover it runs what the new master has and it has not run (`command_stream`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import msgspec

from cluster.broker import Broker, BrokerListener, HistoryPolicy
from cluster.errors import BAD_REQUEST, INTERNAL, StoreError
from cluster.log import get_logger
from cluster.metrics.counters import Counters
from cluster.node.command_stream import CommandStream
from cluster.protocol import Position, Publication

log = get_logger()

#: Version of the messages; a worker ignores those of a later one.
VERSION: Final = 1
#: Largest message to all workers: it is kept, and each of them parses it.
MAXIMUM_MESSAGE_BYTES: Final = 65_536
#: Largest answer of one worker. Handlers keep theirs below it; a larger one is not sent.
MAXIMUM_ANSWER_BYTES: Final = 1_048_576
#: How long a question waits for its answers.
ANSWER_SECONDS: Final = 2.0
#: How long one command may run; a handler of many connections yields, and takes far less.
COMMAND_SECONDS: Final = 30.0
#: Commands that may wait at one worker; later ones are dropped and counted.
MOST_WAITING: Final = 10_000
#: Questions that one worker asks at a time, and those of others that may wait for its answer.
MOST_ASKED: Final = 16
MOST_UNANSWERED: Final = 1_000

#: The channel that every worker hears. Others are named by the worker's id, which has no such form.
ALL: Final = "all"
_KEPT: Final = HistoryPolicy(1000, 60_000, 0)
_NOT_KEPT: Final = HistoryPolicy(0, 0, 0)
_ANSWER: Final = "answer"
_REREAD_SECONDS: Final = 0.5

T = TypeVar("T")
Handler = Callable[[Any], Coroutine[Any, Any, Any]]


class ControlBroker(Broker, Protocol):
    """A broker for the control channel, apart from the one for publications."""

    async def subscribers(self, channel: str) -> int:
        """How many workers are subscribed to a channel; raises `StoreError`."""


class Gathered(NamedTuple):
    """The answers to a question.

    Attributes:
        answers: as JSON text, by the id of the worker.
        missing: workers that have not answered in time.
    """

    answers: dict[str, bytes]
    missing: int


class _Envelope(msgspec.Struct, gc=False):
    """What every message has; the `id` of a command is one that its sender gives to no other."""

    v: int
    kind: str
    sender: str
    body: msgspec.Raw
    id: int = 0


class _Kind(NamedTuple):
    decode: Callable[[bytes], Any]
    handler: Handler
    is_question: bool
    take: Callable[[str, Any], None] | None = None


class _Waiting:
    """A question that waits for its answers; `expected` is -1 until the store has said how many."""

    __slots__ = ("answers", "changed", "expected")

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.expected = -1
        self.changed = asyncio.Event()

    async def all_here(self) -> None:
        while self.expected < 0 or len(self.answers) < self.expected:
            self.changed.clear()
            await self.changed.wait()


_ENVELOPES: Final = msgspec.json.Decoder(_Envelope)


class Control:
    """One worker's end of the control channel.

    Args:
        uid: of this worker; no other one has it.
        open_broker: makes the broker for the listener of its messages, which is this object.
        timeout_seconds: how long the store may take to accept a message.
    """

    def __init__(
        self,
        uid: str,
        counters: Counters,
        *,
        open_broker: Callable[[BrokerListener], ControlBroker],
        timeout_seconds: float,
    ) -> None:
        self.uid = uid
        self._counters = counters.control
        self._errors = counters.errors
        self._timeout_seconds = timeout_seconds
        self._kinds: dict[str, _Kind] = {}
        self._stream = CommandStream()
        self._is_behind = False
        self._commands: deque[tuple[_Kind, Any]] = deque()
        self._questions = asyncio.Semaphore(MOST_ASKED)
        self._answering = 0
        self._waiting: dict[int, _Waiting] = {}
        self._asked = self._told = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._broker = open_broker(self)

    # --- set up --------------------------------------------------------------------------------

    def on_command(
        self, kind: str, shape: type[T], run: Callable[[T], Coroutine[Any, Any, None]]
    ) -> None:
        """Run this for commands of a kind; it yields to the loop if it has much to do."""
        self._kinds[kind] = _Kind(msgspec.json.Decoder(shape).decode, run, is_question=False)

    def on_question(
        self, kind: str, shape: type[T], answer: Callable[[T], Coroutine[Any, Any, Any]]
    ) -> None:
        """Answer questions of a kind with what this returns: anything that msgspec encodes."""
        self._kinds[kind] = _Kind(msgspec.json.Decoder(shape).decode, answer, is_question=True)

    def on_report(self, kind: str, shape: type[T], take: Callable[[str, T], None]) -> None:
        """Call this with the sender's uid and its report, at once; it must be cheap and not raise."""
        self._kinds[kind] = _Kind(msgspec.json.Decoder(shape).decode, _no_handler, False, take)

    async def start(self) -> None:
        """Subscribe, and take the present position; may be tried again.

        Raises:
            StoreError, TimeoutError: the store is not available.
        """
        async with asyncio.timeout(self._timeout_seconds):
            await asyncio.gather(self._broker.subscribe(ALL), self._broker.subscribe(self.uid))
            read = await self._broker.read(ALL, _KEPT, limit=-1, reverse=True)
        self._stream.begin(read)
        if self._is_behind:
            self._read_soon()

    async def aclose(self) -> None:
        """Stop what is running."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- sending -------------------------------------------------------------------------------

    async def tell(self, kind: str, message: Any) -> None:
        """Send a command to all workers, this one included; returns when the store has it.

        Raises:
            ClientError: 107 if the message is too large, 100 if the store is unavailable.
        """
        await self._tell(kind, message, _KEPT)

    async def report(self, kind: str, message: Any) -> None:
        """Send a report to all workers, this one included; one that is away misses it.

        Raises:
            ClientError: as `tell`.
        """
        await self._tell(kind, message, _NOT_KEPT)

    async def _tell(self, kind: str, message: Any, history: HistoryPolicy) -> None:
        self._told += 1
        body = self._encoded(kind, message, self._told)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                position = await self._send(ALL, body, history)
        except (StoreError, TimeoutError) as error:
            raise self._failed("control_command_failed", error) from None
        if position.offset:
            self._stream.expect(Publication(position.offset, position.epoch, body))

    async def ask(self, kind: str, message: Any, within: float = ANSWER_SECONDS) -> Gathered:
        """Ask all workers, this one included, and wait for their answers.

        Args:
            within: seconds; then what has come is returned.

        Raises:
            ClientError: 107 if the message is too large, 100 if the store is unavailable.
        """
        self._asked += 1
        number = self._asked
        body = self._encoded(kind, message, number)
        waiting = self._waiting[number] = _Waiting()
        try:
            async with asyncio.timeout(within), self._questions:
                # One pipeline: those that are subscribed now get the question.
                count, _ = await asyncio.gather(
                    self._broker.subscribers(ALL), self._send(ALL, body, _NOT_KEPT)
                )
                waiting.expected = max(1, count)
                waiting.changed.set()
                await waiting.all_here()
        except TimeoutError as error:
            if waiting.expected < 0:
                raise self._failed("control_question_failed", error) from None
        except StoreError as error:
            raise self._failed("control_question_failed", error) from None
        finally:
            del self._waiting[number]
        missing = max(0, waiting.expected - len(waiting.answers))
        if missing:
            self._counters["unanswered"] += missing
            log.warning("control_answers_missing", kind=kind, missing=missing)
        return Gathered(waiting.answers, missing)

    def _encoded(self, kind: str, message: Any, number: int) -> bytes:
        envelope = _Envelope(VERSION, kind, self.uid, _raw(message), number)
        body = msgspec.json.encode(envelope)
        if len(body) > MAXIMUM_MESSAGE_BYTES:
            raise BAD_REQUEST.fresh()
        return body

    async def _send(self, channel: str, body: bytes, history: HistoryPolicy) -> Position:
        sent: asyncio.Future[Position] = asyncio.get_running_loop().create_future()

        def done(reply: Position | StoreError) -> None:
            if sent.done():
                return
            if isinstance(reply, StoreError):
                sent.set_exception(reply)
            else:
                sent.set_result(reply)

        self._broker.publish(channel, body, history, int(time.time() * 1000), done)
        self._counters["sent"] += 1
        return await sent

    def _failed(self, event: str, error: Exception) -> Exception:
        self._errors["store"] += 1
        log.error(event, reason=str(error) or "the store is too slow")
        return INTERNAL.fresh()

    # --- from the broker -----------------------------------------------------------------------

    def publications(self, channel: str, publications: list[Publication]) -> None:
        """Take messages; see `BrokerListener`."""
        for one in publications:
            if not one.offset or self._follows(one):
                self._received(one.body)

    def _follows(self, one: Publication) -> bool:
        """Whether a command is the next one; if some are missing they are read, and this one with them."""
        if self._stream.is_known(one):
            return False
        if self._reader is None and self._stream.follows(one):
            return True
        self._stream.expect(one)
        self._read_soon()
        return False

    def joins_and_leaves(self, channel: str, events: list[bytes]) -> None:
        """Nobody is a member of a control channel."""

    def resumed(self, channel: str) -> None:
        """Read what may be missing; see `BrokerListener`."""
        if channel == ALL:
            self._read_soon()

    def _read_soon(self) -> None:
        self._is_behind = True
        if self._reader is None and self._stream.has_begun:
            self._reader = self._start(self._catch_up())

    async def _catch_up(self) -> None:
        try:
            while self._is_behind:
                self._is_behind = False
                try:
                    waits = await self._read_missing()
                except (StoreError, TimeoutError):
                    # The link reports it.
                    waits = True
                if waits:
                    self._is_behind = True
                    await asyncio.sleep(_REREAD_SECONDS)
        finally:
            # Nothing was awaited since `_is_behind` was checked.
            self._reader = None

    async def _read_missing(self) -> bool:
        """Run what is missing; returns whether to read again later."""
        stream, awaited = self._stream, self._stream.awaited
        async with asyncio.timeout(self._timeout_seconds):
            read = await self._broker.read(ALL, _KEPT, since=stream.since, limit=-1)
        missed = stream.take(read, awaited)
        self._is_behind = self._is_behind or missed.is_behind
        for body in missed.bodies:
            self._received(body)
        if missed.lost > 0:
            self._counters["lost"] += missed.lost
            log.error("control_commands_lost", commands=missed.lost)
        return missed.waits

    def _received(self, body: bytes) -> None:
        try:
            envelope = _ENVELOPES.decode(body)
            if envelope.kind == _ANSWER:
                self._answered(envelope)
                return
            kind = self._kinds.get(envelope.kind)
            if kind is None or envelope.v > VERSION:
                self._counters["unknown"] += 1
                return
            message = kind.decode(bytes(envelope.body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._counters["invalid"] += 1
            return
        self._counters["received"] += 1
        if kind.take is not None:
            kind.take(envelope.sender, message)
        elif kind.is_question:
            self._answer_soon(envelope, kind, message)
        elif len(self._commands) >= MOST_WAITING:
            self._overflowed(envelope.kind)
        else:
            self._commands.append((kind, message))
            if self._runner is None:
                self._runner = self._start(self._run_commands())

    def _answered(self, envelope: _Envelope) -> None:
        waiting = self._waiting.get(envelope.id)
        if waiting is not None:
            waiting.answers[envelope.sender] = bytes(envelope.body)
            waiting.changed.set()

    def _overflowed(self, kind: str) -> None:
        if not self._counters["dropped"]:
            log.error("control_queue_full", kind=kind)
        self._counters["dropped"] += 1

    # --- handling ------------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run_commands(self) -> None:
        try:
            while self._commands:
                kind, message = self._commands.popleft()
                await self._handled(kind, message, COMMAND_SECONDS)
                # One command may be cheap, and ten thousand of them are not.
                await asyncio.sleep(0)
        finally:
            self._runner = None

    def _answer_soon(self, envelope: _Envelope, kind: _Kind, message: Any) -> None:
        if self._answering >= MOST_UNANSWERED:
            self._overflowed(envelope.kind)
            return
        self._answering += 1
        self._start(self._answer(envelope, kind, message))

    async def _answer(self, envelope: _Envelope, kind: _Kind, message: Any) -> None:
        try:
            found = await self._handled(kind, message, ANSWER_SECONDS)
            if found is None:
                return
            answer = _Envelope(VERSION, _ANSWER, self.uid, _raw(found), envelope.id)
            body = msgspec.json.encode(answer)
            if len(body) > MAXIMUM_ANSWER_BYTES:
                self._errors["internal"] += 1
                log.error("control_answer_too_large", kind=envelope.kind, bytes=len(body))
                return
            # The worker that asked reports the answer as missing.
            with contextlib.suppress(StoreError):
                await self._send(envelope.sender, body, _NOT_KEPT)
        finally:
            self._answering -= 1

    async def _handled(self, kind: _Kind, message: Any, within: float) -> Any:
        """Call a handler; its failure is counted, logged and has no other consequence."""
        try:
            async with asyncio.timeout(within):
                return await kind.handler(message)
        except Exception as error:
            self._errors["internal"] += 1
            log.error("control_handler_failed", message=type(message).__name__, exc_info=error)
            return None


async def _no_handler(_: Any) -> None:
    """A report has none: it is taken at once."""


def _raw(message: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(message))
