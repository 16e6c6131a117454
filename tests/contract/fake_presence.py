"""An in-memory fake of presence: the same contract, no server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from cluster.errors import StoreError, StoreUnavailable
from cluster.presence import (
    JOIN,
    LEAVE,
    Change,
    PresenceMode,
    PresenceStats,
    PresenceStore,
    PresenceTooLarge,
    Renewed,
)
from tests.contract.fakes import MemoryStore


class MemoryPresence:
    """See `cluster.presence.PresenceStore`."""

    def __init__(self, store: MemoryStore, *, ttl_seconds: float) -> None:
        self.store = store
        self.ttl_seconds = ttl_seconds
        self._loop = asyncio.get_running_loop()

    def change(
        self,
        channel: str,
        changes: Sequence[Change],
        mode: PresenceMode,
        done: Callable[[StoreError | None], None],
    ) -> None:
        wanted = list(changes)

        def work() -> None:
            if not self.store.is_up:
                done(StoreUnavailable("the store is away"))
                return
            events = [event for one in wanted for event in self._changed(channel, one, mode)]
            self.store.tell(channel, events)
            done(None)

        self._loop.call_soon(work)

    def _changed(self, channel: str, one: Change, mode: PresenceMode) -> list[bytes]:
        is_told = mode.is_published
        event = [one.kind + one.info] if one.kind in {JOIN, LEAVE} and is_told else []
        if not mode.has_entries:
            return event
        members = self.store.members.setdefault(channel, {})
        if one.kind == LEAVE:
            return self._removed(channel, one.client)
        untold = self.store.untold_members
        (untold.discard if is_told else untold.add)((channel, one.client))
        members[one.client] = (time.monotonic() + self.ttl_seconds, one.user, one.info)
        return event

    def _removed(self, channel: str, client: str) -> list[bytes]:
        """Remove an entry; returns its leave, if others are told of it."""
        removed = self.store.members[channel].pop(client, None)
        is_told = (channel, client) not in self.store.untold_members
        self.store.untold_members.discard((channel, client))
        return [LEAVE + removed[2]] if removed and is_told else []

    def renew(
        self,
        channel: str,
        clients: Sequence[str],
        done: Callable[[Renewed | StoreError], None],
        *,
        sweeps: bool,
    ) -> None:
        wanted = list(clients)

        def work() -> None:
            if not self.store.is_up:
                done(StoreUnavailable("the store is away"))
                return
            members = self.store.members.setdefault(channel, {})
            now = time.monotonic()
            for client in wanted:
                if client in members:
                    members[client] = (now + self.ttl_seconds, *members[client][1:])
            missing = [client for client in wanted if client not in members]
            if sweeps:
                self._sweep(channel)
            ends = [one[0] for one in members.values()]
            done(Renewed(missing, max(0.0, min(ends) - now) if ends else None))

        self._loop.call_soon(work)

    def _sweep(self, channel: str) -> None:
        members = self.store.members.setdefault(channel, {})
        now = time.monotonic()
        gone = [client for client, (end, _, _) in members.items() if end < now]
        self.store.tell(
            channel, [event for client in gone for event in self._removed(channel, client)]
        )

    async def stats(self, channel: str, *, sweeps: bool) -> PresenceStats:
        await asyncio.sleep(0)
        if not self.store.is_up:
            raise StoreUnavailable("the store is away")
        if sweeps:
            self._sweep(channel)
        members = self.store.members.get(channel, {})
        return PresenceStats(len(members), len({user for _, user, _ in members.values()}))

    async def entries(self, channel: str, *, max_bytes: int, sweeps: bool) -> dict[str, bytes]:
        await self.stats(channel, sweeps=sweeps)
        members = self.store.members.get(channel, {})
        if sum(len(client) + len(info) for client, (_, _, info) in members.items()) > max_bytes:
            raise PresenceTooLarge("the entries have too many bytes")
        return {client: info for client, (_, _, info) in members.items()}


def _fake_fits(presence: MemoryPresence) -> PresenceStore:
    """For the type checker: the fake has the methods of the protocol."""
    return presence
