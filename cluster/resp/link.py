"""The pipelined connection to one server, and the link that keeps one open.

Guarantees of a connection: commands of one loop turn leave in one write; replies reach their callbacks
in the order of the commands; when it ends, every command in flight is called back exactly once with
`StoreUnavailable`; what a peer says unasked, or not in the protocol, ends it and is the reason. Messages
(pub/sub) are passed on as one list per read: a batch that grows with the load is cheap (docs/adr/0005).

Guarantees of a link: while it is down it refuses at once (`StoreUnavailable`), so that callers can answer
"temporary" instead of waiting; a server that is a replica, or answers as one or as one that is
loading, is down; if a reply is late by more than `timeout_seconds`, the connection is closed and made
anew; no error ends the attempts, and a connection that does not last is followed by a pause (`ReconnectDelay`); a command is never repeated, except a script that the server did not know.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis

from cluster.config.redis_url import Address
from cluster.errors import StoreError, StoreRefused, StoreUnavailable
from cluster.log import get_logger
from cluster.resp.ask_redirection import ask_before
from cluster.resp.opening import connect, is_message, open_with, wait_any
from cluster.resp.reconnect_delay import ReconnectDelay
from cluster.resp.role import MasterIdentity
from cluster.resp.scripts import Script

log = get_logger()

Arg = bytes | str | int | float
#: Gets the reply that hiredis parsed, or the error that came instead of it.
Done = Callable[[Any], None]

_HIGH_WATER_BYTES = 64 * 1024 * 1024
#: Errors of a server that another one has replaced, or that has no data yet.
_NOT_A_MASTER = frozenset({"READONLY", "LOADING", "MASTERDOWN"})
#: Of an attempt to connect; ValueError is about a host that is no name.
_EXPECTED = (OSError, StoreError, ValueError)


class RespConnection(asyncio.Protocol):
    """The client's end of one connection.

    Args:
        on_messages: gets all pub/sub messages of one read; None on a connection for commands.
        on_lost: called once when the connection has ended, after all callbacks.
        on_refused: gets every error reply, before the callback of its command.

    Attributes:
        failure: why it has ended, if the peer has said so.
    """

    def __init__(
        self,
        *,
        on_lost: Callable[[], None],
        on_messages: Callable[[list[Any]], None] | None = None,
        on_refused: Callable[[StoreRefused], None] = lambda error: None,
    ) -> None:
        def refused(text: str) -> StoreRefused:
            error = StoreRefused(text)
            on_refused(error)
            return error

        self._reader = hiredis.Reader(replyError=refused)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._pending: deque[Done] = deque()
        self._on_lost = on_lost
        self._on_messages = on_messages
        self._oldest_sent_at = 0.0
        self._has_sent_uncalled = False
        self.failure: StoreError | None = None
        self.is_open = False

    # --- commands ------------------------------------------------------------------------

    def submit(self, args: Sequence[Arg], done: Done) -> None:
        """Send one command; `done` gets its reply, a `StoreRefused` or a `StoreUnavailable`."""
        if not self.is_open:
            done(StoreUnavailable(str(self.failure or "the store's connection is closed")))
            return
        if not self._pending:
            self._oldest_sent_at = self._loop.time()
        self._pending.append(done)
        self._queue(_pack(args))

    async def call(self, *args: Arg) -> Any:
        """Send one command and wait for its reply; an error that comes instead is raised."""
        return await wait_for(lambda done: self.submit(args, done))

    def send(self, args: Sequence[Arg]) -> None:
        """Send one command whose answer comes as a message (the subscribe family)."""
        if self.is_open:
            self._has_sent_uncalled = True
            self._queue(_pack(args))

    def waiting_since(self) -> float | None:
        """Return the loop time since which a reply is awaited, or None."""
        return self._oldest_sent_at if self._pending else None

    def abort(self) -> None:
        """End the connection now; callbacks follow from `connection_lost`."""
        if self._transport is not None:
            self._transport.abort()

    def _queue(self, packed: bytes) -> None:
        out = self._out
        if not out:
            self._loop.call_soon(self._flush)
        out.append(packed)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if (transport := self._transport) is None or not self.is_open:
            return
        transport.write(b"".join(out))
        if transport.get_write_buffer_size() > _HIGH_WATER_BYTES:
            transport.abort()

    # --- asyncio.Protocol ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports only look like asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        reader.feed(data)
        try:
            if self._on_messages is None:
                self._read_replies(reader)
            else:
                self._read_messages(reader, self._on_messages)
        except hiredis.ProtocolError as error:
            self._fail(StoreUnavailable(f"what answers is no Redis or Valkey: {error}"))

    def _read_replies(self, reader: hiredis.Reader) -> None:
        pending = self._pending
        while (reply := reader.gets()) is not False:
            try:
                done = pending.popleft()
            except IndexError:
                self._fail_unasked(reply)
                return
            _call(done, reply)
        # The server replies in order, so any reply shows that it is alive.
        self._oldest_sent_at = self._loop.time()

    def _read_messages(
        self, reader: hiredis.Reader, on_messages: Callable[[list[Any]], None]
    ) -> None:
        messages = []
        pending = self._pending
        while (reply := reader.gets()) is not False:
            if pending and not is_message(reply):
                _call(pending.popleft(), reply)
            else:
                messages.append(reply)
        self._oldest_sent_at = self._loop.time()
        if messages and not (self._has_sent_uncalled or is_message(messages[0])):
            self._fail_unasked(messages[0])
        elif messages:
            _call(on_messages, messages)

    def _fail_unasked(self, reply: Any) -> None:
        unasked = StoreUnavailable("the store answers what it has not been asked")
        self._fail(reply if isinstance(reply, StoreRefused) else unasked)

    def _fail(self, failure: StoreError) -> None:
        self.failure = failure
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._transport = None
        self._out.clear()
        lost = StoreUnavailable(str(self.failure or "the connection to the store broke"))
        while self._pending:
            _call(self._pending.popleft(), lost)
        self._on_lost()


def _pack(args: Sequence[Arg]) -> bytes:
    # The stub asks for a tuple of one; the function takes any number.
    packed: bytes = hiredis.pack_command(tuple(args))  # type: ignore[arg-type]
    return packed


def _call(back: Callable[[Any], None], reply: Any) -> None:
    """Call back; an error in one callback must not end the connection of all others."""
    try:
        back(reply)
    except Exception:
        log.exception("store_callback_failed")


class Link:
    """A connection to one server that reconnects by itself.

    Args:
        on_messages: makes this a link for subscriptions; see `RespConnection`.
        on_up: called each time the server has become reachable.
        on_down: called each time it has been lost.
        on_demoted: called when the server has answered that it takes no writes now; the connection
            ends, and there is no other until a master answers.
        on_cut_off: called each time the server has answered that it is cut off from its Redis Cluster.

    Attributes:
        failure: why the last attempt to connect has failed, None if it has not.
        identity: of the server, as it was when the connection was made.
    """

    def __init__(
        self,
        address: Address,
        *,
        timeout_seconds: float,
        on_up: Callable[[], None] = lambda: None,
        on_down: Callable[[], None] = lambda: None,
        on_demoted: Callable[[], None] = lambda: None,
        on_cut_off: Callable[[], None] = lambda: None,
        on_messages: Callable[[list[Any]], None] | None = None,
    ) -> None:
        self.address = address
        self.failure: Exception | None = None
        self.identity = MasterIdentity()
        self._timeout_seconds = timeout_seconds
        self._on_up = on_up
        self._on_down = on_down
        self._on_demoted = on_demoted
        self._on_cut_off = on_cut_off
        self._on_messages = on_messages
        self._connection: RespConnection | None = None
        self._lost = asyncio.Event()
        self._up = asyncio.Event()
        # The last attempt was refused for its user or password.
        self._denied = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False

    # --- life ----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect; `wait_up` returns when that has worked."""
        self._task = asyncio.create_task(self._run(), name=f"link {self.address}")

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    async def wait_up(self) -> None:
        """Wait until the server is reachable; bound it from outside."""
        await self._up.wait()

    async def wait_up_or_denied(self) -> None:
        """Wait until the server is reachable; cancel or bound it from outside.

        Raises:
            StoreRefused: it refuses the user or the password. The link goes on trying.
        """
        while not self._up.is_set():
            if self._denied.is_set() and self.failure is not None:
                raise StoreRefused(str(self.failure))
            await wait_any(self._up, self._denied)

    def reset(self) -> None:
        """Close the present connection and connect again."""
        if self._connection is not None:
            self._connection.abort()

    async def aclose(self) -> None:
        """End the link; commands in flight are called back with `StoreUnavailable`."""
        self._is_closing = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._connection is not None:
            self._connection.abort()
            await asyncio.wait_for(self._lost.wait(), 1.0)

    # --- commands ------------------------------------------------------------------------

    def submit(self, args: Sequence[Arg], done: Done) -> None:
        """Send a command; see `RespConnection.submit`. Refused at once while the link is down."""
        if self._connection is None or not self._up.is_set():
            done(StoreUnavailable(f"the store at {self.address} is not reachable"))
            return
        self._connection.submit(args, done)

    def send(self, args: Sequence[Arg]) -> None:
        """Send a subscribe command; dropped without an error while the link is down."""
        if self._connection is not None and self._up.is_set():
            self._connection.send(args)

    def submit_script(
        self,
        script: Script,
        keys: Sequence[Arg],
        args: Sequence[Arg],
        done: Done,
        *,
        follows_ask: bool = False,
    ) -> None:
        """Run a script by its hash.

        If the server does not know the script, it is run again by its text. A script that keeps its order is
        refused instead, and loaded for the commands that follow: a later one may have been done meanwhile.

        Args:
            follows_ask: see `ask_before`.
        """

        def again(reply: Any) -> None:
            if not (isinstance(reply, StoreRefused) and str(reply).startswith("NOSCRIPT")):
                done(reply)
            elif script.keeps_order:
                self.submit(("SCRIPT", "LOAD", script.text), lambda _: None)
                done(reply)
            else:
                last = ask_before(self.submit, done) if follows_ask else done
                self.submit(("EVAL", script.text, len(keys), *keys, *args), last)

        first = ask_before(self.submit, again) if follows_ask else again
        self.submit(("EVALSHA", script.sha, len(keys), *keys, *args), first)

    async def call(self, *args: Arg) -> Any:
        """Send a command and wait for its reply.

        Raises:
            StoreUnavailable: if it is not known whether the command was done.
            StoreRefused: if the server answered with an error.
        """
        return await wait_for(lambda done: self.submit(args, done))

    # --- connecting ----------------------------------------------------------------------

    async def _run(self) -> None:
        delay = ReconnectDelay()
        loop = asyncio.get_running_loop()
        has_warned = has_traced = False
        while True:
            try:
                connection = await self._connect()
            except Exception as error:
                if not (isinstance(error, _EXPECTED) or has_traced):
                    log.exception("store_connect_failed", server=str(self.address))
                    has_traced = True
                self.failure = error
                self._denied.clear()
                if isinstance(error, StoreRefused) and error.is_denial:
                    self._denied.set()
                if self._connection is not None:
                    self._connection.abort()
                if not has_warned:
                    log.warning("store_unreachable", server=str(self.address), reason=str(error))
                    has_warned = True
                await asyncio.sleep(delay.after_failure())
                continue
            connected_at = loop.time()
            if has_warned:
                log.info("store_reachable", server=str(self.address))
            await self._watch(connection)
            has_warned = True
            if not self._is_closing:
                why = str(connection.failure or "the connection broke")
                log.warning("store_lost", server=str(self.address), reason=why)
            await asyncio.sleep(delay.after(loop.time() - connected_at))

    async def _connect(self) -> RespConnection:
        self._lost.clear()

        def protocol() -> RespConnection:
            return RespConnection(
                on_lost=self._connection_lost,
                on_messages=self._on_messages,
                on_refused=self._refused,
            )

        async with asyncio.timeout(self._timeout_seconds):
            connection = self._connection = await connect(protocol, self.address)
            try:
                self.identity = await open_with(
                    connection.call, self.address, loads_scripts=self._on_messages is None
                )
            except StoreUnavailable as lost:
                raise connection.failure or lost from None
        self.failure = None
        self._denied.clear()
        self._up.set()
        self._on_up()
        return connection

    def _refused(self, error: StoreRefused) -> None:
        if error.kind == "CLUSTERDOWN":
            self._on_cut_off()
        connection = self._connection
        if connection is None or not self._up.is_set() or error.kind not in _NOT_A_MASTER:
            return
        self._up.clear()
        log.warning("store_demoted", server=str(self.address), reason=str(error))
        # Later, because replies that have arrived with this one belong to their commands.
        asyncio.get_running_loop().call_soon(connection.abort)
        self._on_demoted()
        self._on_down()

    async def _watch(self, connection: RespConnection) -> None:
        """Return when the connection has ended; end it if a reply is late."""
        loop = asyncio.get_running_loop()
        while not self._lost.is_set():
            # Not `wait_for`, which may drop a cancellation that comes with the loss (CPython 3.11).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timeout_seconds / 4):
                    await self._lost.wait()
            since = connection.waiting_since()
            if since is not None and loop.time() - since > self._timeout_seconds:
                connection.abort()

    def _connection_lost(self) -> None:
        was_up = self._up.is_set()
        self._up.clear()
        self._connection = None
        self._lost.set()
        if was_up and not self._is_closing:
            self._on_down()


async def wait_for(submit: Callable[[Done], None]) -> Any:
    """Turn a callback into an awaitable; an error that comes as the reply is raised."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def done(reply: Any) -> None:
        if future.done():
            return
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    submit(done)
    return await future
