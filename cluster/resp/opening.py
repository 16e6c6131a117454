"""A new connection: what is sent before anything else, and who has answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from cluster.config.redis_url import Address
from cluster.errors import StoreRefused
from cluster.resp.role import MasterIdentity, master_identity
from cluster.resp.scripts import SCRIPTS

#: Sends one command and waits for its reply.
Call = Callable[..., Awaitable[Any]]

Connection = TypeVar("Connection", bound=asyncio.Protocol)

_MESSAGE_KINDS: Final = frozenset(
    {b"message", b"smessage", b"subscribe", b"ssubscribe", b"unsubscribe", b"sunsubscribe"}
)


async def connect(make: Callable[[], Connection], address: Address) -> Connection:
    """Connect to a server; returns what `make` has made for the connection.

    Raises:
        OSError: it cannot be reached.
        ValueError: its host is no name.
    """
    loop = asyncio.get_running_loop()
    if address.path:
        _, connection = await loop.create_unix_connection(make, address.path)
    else:
        _, connection = await loop.create_connection(
            make, address.host, address.port, ssl=address.tls_context()
        )
    return connection


async def open_with(call: Call, address: Address, *, loads_scripts: bool) -> MasterIdentity:
    """Say who we are, choose the database and load the scripts; returns who has answered.

    Raises:
        StoreRefused: the server refuses one of these.
        StoreUnavailable: the connection broke.
    """
    commands: list[tuple[str | int, ...]] = []
    if address.password:
        user = (address.username,) if address.username else ()
        commands.append(("AUTH", *user, address.password))
    if address.client_name:
        commands.append(("CLIENT", "SETNAME", address.client_name))
    if address.database:
        commands.append(("SELECT", address.database))
    if loads_scripts:
        commands.extend(("SCRIPT", "LOAD", script.text) for script in SCRIPTS)
    waits = [asyncio.ensure_future(call(*command)) for command in commands]
    waits.append(asyncio.ensure_future(_ping(call)))
    info = asyncio.ensure_future(call("INFO", "server", "replication"))
    _, [about] = await asyncio.gather(
        asyncio.gather(*waits), asyncio.gather(info, return_exceptions=True)
    )
    return master_identity(about)


async def _ping(call: Call) -> None:
    """Raise what the server refuses a PING with, unless it only cannot write to its disk."""
    try:
        await call("PING")
    except StoreRefused as refused:
        if refused.kind != "MISCONF":
            raise


def is_message(reply: Any) -> bool:
    """Whether what was read while answers are awaited is a message of pub/sub."""
    return isinstance(reply, list) and bool(reply) and reply[0] in _MESSAGE_KINDS


async def wait_any(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
