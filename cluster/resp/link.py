"""One server kept reachable: connect, authenticate, load the scripts, reconnect with back-off.

Guarantees: a link that is down refuses at once (`StoreUnavailable`), so that callers can say
"temporary" instead of waiting; a server that owes a reply for longer than `timeout_seconds` is
given up and connected to again; a command is never repeated here, except after NOSCRIPT, where
the server has said that nothing was done, and then only if nothing rests on its order: a later one
of the same key may have been done meanwhile, by a script that somebody else has loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any

from cluster.config.redis_url import Address
from cluster.errors import StoreError, StoreRefused, StoreUnavailable
from cluster.log import get_logger
from cluster.resp.connection import Arg, Done, RespConnection
from cluster.resp.scripts import SCRIPTS, Script

log = get_logger()

_BACKOFF_FIRST_SECONDS = 0.05
_BACKOFF_LIMIT_SECONDS = 1.0


class Link:
    """A connection to one server that comes back by itself.

    Args:
        on_messages: makes this a link for subscriptions; see `RespConnection`.
        on_up: awaited-for hook, called each time the server has become reachable.
        on_down: called each time it has been lost.
    """

    def __init__(
        self,
        address: Address,
        *,
        timeout_seconds: float,
        on_up: Callable[[], None] = lambda: None,
        on_down: Callable[[], None] = lambda: None,
        on_messages: Callable[[list[Any]], None] | None = None,
    ) -> None:
        self.address = address
        self._timeout_seconds = timeout_seconds
        self._on_up = on_up
        self._on_down = on_down
        self._on_messages = on_messages
        self._connection: RespConnection | None = None
        self._lost = asyncio.Event()
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False

    # --- life ----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect; `wait_up` tells when that has worked."""
        self._task = asyncio.get_running_loop().create_task(
            self._run(), name=f"link {self.address}"
        )

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    async def wait_up(self) -> None:
        """Wait until the server is reachable; cancel or bound it from outside."""
        await self._up.wait()

    def reset(self) -> None:
        """Give up the present connection and connect again."""
        if self._connection is not None:
            self._connection.abort()

    async def aclose(self) -> None:
        """End the link; what was under way is called back with `StoreUnavailable`."""
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
            done(StoreUnavailable(f"the store at {self.address} is away"))
            return
        self._connection.submit(args, done)

    def send(self, args: Sequence[Arg]) -> None:
        """Send a subscribe command; lost without a word while the link is down."""
        if self._connection is not None and self._up.is_set():
            self._connection.send(args)

    def submit_script(
        self, script: Script, keys: Sequence[Arg], args: Sequence[Arg], done: Done
    ) -> None:
        """Run a script by its hash.

        If the server does not know it, once more by its text; what keeps its order is refused, and
        the script loaded for those that follow.
        """

        def again(reply: Any) -> None:
            if not (isinstance(reply, StoreRefused) and str(reply).startswith("NOSCRIPT")):
                done(reply)
            elif script.keeps_order:
                self.submit(("SCRIPT", "LOAD", script.text), lambda _: None)
                done(reply)
            else:
                self.submit(("EVAL", script.text, len(keys), *keys, *args), done)

        self.submit(("EVALSHA", script.sha, len(keys), *keys, *args), again)

    async def call(self, *args: Arg) -> Any:
        """Send a command and wait for its reply.

        Raises:
            StoreUnavailable: when nobody knows whether it was done.
            StoreRefused: when the server said no.
        """
        return await wait_for(lambda done: self.submit(args, done))

    # --- connecting ----------------------------------------------------------------------

    async def _run(self) -> None:
        backoff = _BACKOFF_FIRST_SECONDS
        has_warned = False
        while True:
            try:
                await self._connect()
            except (OSError, StoreError, TimeoutError) as error:
                if self._connection is not None:
                    self._connection.abort()
                if not has_warned:
                    log.warning("store_unreachable", server=str(self.address), reason=str(error))
                    has_warned = True
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
                backoff = min(backoff * 2, _BACKOFF_LIMIT_SECONDS)
                continue
            backoff = _BACKOFF_FIRST_SECONDS
            if has_warned:
                log.info("store_reachable", server=str(self.address))
            await self._watch()
            has_warned = True
            if not self._is_closing:
                log.warning("store_lost", server=str(self.address))

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._lost.clear()
        address = self.address

        def protocol() -> RespConnection:
            return RespConnection(on_lost=self._connection_lost, on_messages=self._on_messages)

        async with asyncio.timeout(self._timeout_seconds):
            if address.path:
                _, connection = await loop.create_unix_connection(protocol, address.path)
            else:
                _, connection = await loop.create_connection(
                    protocol, address.host, address.port, ssl=address.tls_context()
                )
            self._connection = connection
            await self._introduce(connection)
        self._up.set()
        self._on_up()

    async def _introduce(self, connection: RespConnection) -> None:
        address = self.address
        commands: list[tuple[Arg, ...]] = []
        if address.password:
            user = (address.username,) if address.username else ()
            commands.append(("AUTH", *user, address.password))
        if address.client_name:
            commands.append(("CLIENT", "SETNAME", address.client_name))
        if address.database:
            commands.append(("SELECT", address.database))
        if self._on_messages is None:
            commands.extend(("SCRIPT", "LOAD", script.text) for script in SCRIPTS)
        commands.append(("PING",))
        waits = [asyncio.ensure_future(_call(connection, command)) for command in commands]
        await asyncio.gather(*waits)

    async def _watch(self) -> None:
        """Return when the connection has ended; end it if the server owes a reply too long."""
        loop = asyncio.get_running_loop()
        while not self._lost.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), self._timeout_seconds / 4)
            connection = self._connection
            since = connection.waiting_since() if connection is not None else None
            if connection is None or since is None:
                continue
            if loop.time() - since > self._timeout_seconds:
                connection.abort()

    def _connection_lost(self) -> None:
        was_up = self._up.is_set()
        self._up.clear()
        self._connection = None
        self._lost.set()
        if was_up:
            self._on_down()


async def _call(connection: RespConnection, args: Sequence[Arg]) -> Any:
    return await wait_for(lambda done: connection.submit(args, done))


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
