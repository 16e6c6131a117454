"""Who is in a channel: `presence` and `presence_stats`, for clients and for the server API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, Final, TypeVar

import orjson

from cluster.config import Config
from cluster.connection import Connection
from cluster.errors import INTERNAL, LIMIT_EXCEEDED, NOT_AVAILABLE, StoreError
from cluster.metrics.counters import Counters
from cluster.node.commands import store_failed
from cluster.node.members import Members
from cluster.node.permissions import ChannelPermissions, Operation
from cluster.node.reads import StreamReads
from cluster.presence import PresenceStats, PresenceStore, PresenceTooLarge

T = TypeVar("T")

#: Most bytes that a backend gets of one channel's presence.
API_MAX_BYTES: Final = 16 * 1024 * 1024


class Presence:
    """The presence of channels, as one worker reads it.

    Args:
        store: None for a node without presence: every call is answered with 108.
        members: the members of this worker's channels; their changes are sent before a read.
    """

    def __init__(
        self,
        config: Config,
        permissions: ChannelPermissions,
        store: PresenceStore | None,
        members: Members | None,
        reads: StreamReads,
        counters: Counters,
    ) -> None:
        self._config = config
        self._permissions = permissions
        self._store = store
        self._members = members
        self._reads = reads
        self._counters = counters

    async def read_for(
        self, connection: Connection, reader: object, channel: str
    ) -> dict[str, Any]:
        """Answer a client's `presence`.

        A reply may take half of the client's queue: one that fills it would have it closed as slow.

        Raises:
            ClientError: 108 without presence, 106 for a channel with too many members, 102, 103, 107 as the
                permissions say, 100 when the store is unavailable.
        """
        self._allow(connection, channel)
        async with self._reads.turn(reader):
            most = self._config.client.queue_max_size // 2
            return _result(await self._read(channel, most))

    async def stats_for(self, connection: Connection, channel: str) -> dict[str, int]:
        """Answer a client's `presence_stats`; raises as `read_for` does."""
        self._allow(connection, channel)
        return await self.stats(channel)

    async def read(self, channel: str) -> dict[str, Any]:
        """The members of a channel for the server API, as the result of its method `presence`.

        Raises:
            ClientError: as `read_for` does, but for 103; 106 above `API_MAX_BYTES`.
        """
        return _result(await self.entries(channel))

    async def entries(self, channel: str) -> Mapping[str, bytes]:
        """The ClientInfo of each member by client id, as JSON text; raises as `read` does."""
        self._check(channel)
        async with self._reads.turn(self):
            return await self._read(channel, API_MAX_BYTES)

    async def stats(self, channel: str) -> dict[str, int]:
        """The numbers of a channel for the server API; raises as `read` does."""
        found = await self.numbers(channel)
        return {"num_clients": found.clients, "num_users": found.users}

    async def numbers(self, channel: str) -> PresenceStats:
        """The numbers of a channel; raises as `read` does."""
        self._check(channel)
        store, members = self._parts()
        return await self._answer(store.stats(channel, sweeps=members.may_sweep))

    def _allow(self, connection: Connection, channel: str) -> None:
        """Allow a client to read the presence of a channel."""
        self._check(channel)
        self._permissions.allow(Operation.PRESENCE, channel, connection)

    def _check(self, channel: str) -> None:
        if not self._permissions.presence_mode(channel).has_entries or self._store is None:
            raise NOT_AVAILABLE.fresh()

    def _parts(self) -> tuple[PresenceStore, Members]:
        """The store and the members, whose changes of this turn are sent first."""
        assert self._store is not None, "_check has refused"
        assert self._members is not None, "a node with a store has members"
        self._members.send_changes()
        return self._store, self._members

    async def _read(self, channel: str, max_bytes: int) -> Mapping[str, bytes]:
        store, members = self._parts()
        read = store.entries(channel, max_bytes=max_bytes, sweeps=members.may_sweep)
        try:
            return await self._answer(read)
        except PresenceTooLarge:
            raise LIMIT_EXCEEDED.fresh() from None

    async def _answer(self, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._config.broker.timeout):
                return await call
        except (StoreError, TimeoutError) as error:
            store_failed(self._counters, "presence_failed", error, kind="presence")
            raise INTERNAL.fresh() from None


def _result(found: Mapping[str, bytes]) -> dict[str, Any]:
    return {"presence": {client: orjson.Fragment(info) for client, info in found.items()}}
