"""Commands go to the server that owns their key, wherever that is at the moment.

Rules: `Discovery` says which masters there are and which slots each owns; one that can change is
followed as soon as a server is lost or contradicts the map. The URLs of a Redis Cluster are its
seeds. A MOVED answer means that nothing was done, so following it is not a repeat; but a later
command may have gone the new way already, so what must keep its order is refused instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from typing import Any

from redis.crc import key_slot

from cluster.config.redis_url import Address
from cluster.errors import StoreError, StoreRefused, StoreUnavailable
from cluster.log import get_logger
from cluster.resp.discovery import (
    SLOTS,
    ClusterDiscovery,
    Discovery,
    Master,
    StaticDiscovery,
)
from cluster.resp.link import Arg, Done, Link, wait_for
from cluster.resp.scripts import Script
from cluster.resp.shard import Shard
from cluster.resp.subscriptions import Subscriptions

log = get_logger()

_REFRESH_SECONDS = 0.5


class Router:
    """The shards of a store, the slot map, and the subscriptions kept over both.

    Attributes:
        is_cluster: whether the servers are the masters of one Redis Cluster, which answer MOVED.
        subscriptions: the shard channels this process wants; see `Subscriptions`.

    Args:
        urls: one server or cluster, or several servers as shards.
        discovery: names the masters instead of the URLs.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        timeout_seconds: float,
        discovery: Discovery | None = None,
    ) -> None:
        addresses = [Address.from_url(url) for url in urls]
        self._discovery = discovery or StaticDiscovery(addresses)
        self._timeout_seconds = timeout_seconds
        self.is_cluster = False
        self.shards: list[Shard] = []
        self._slots: list[Shard] = []
        self._refresh_wanted = asyncio.Event()
        self._refresher: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self.subscriptions = Subscriptions(self)

    # --- life ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect to every server; returns when all are reachable.

        Raises:
            StoreUnavailable: if one is not reachable within the timeout; it may be tried again.
        """
        if not self.shards:
            self._use(await self._discovery.masters(()))
        if not self._discovery.can_change:
            seed = await self._first_up()
            if await _is_cluster(seed.commands):
                await self._enter_cluster(seed)
        if self._discovery.can_change and self._refresher is None:
            self._refresher = asyncio.get_running_loop().create_task(
                self._keep_fresh(), name="topology"
            )
        # What can change is followed from here on, also while a master is away.
        await self._wait_all_up()

    async def _first_up(self) -> Shard:
        """Return the server that is reachable first."""
        waits = {asyncio.ensure_future(one.commands.wait_up()): one for one in self.shards}
        try:
            done, _ = await asyncio.wait(
                waits, timeout=self._timeout_seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for wait in waits:
                wait.cancel()
        if not done:
            raise self._unreachable(self.shards[0])
        return waits[done.pop()]

    async def _enter_cluster(self, seed: Shard) -> None:
        """Go on with the node that has answered: it knows the others."""
        others = [shard for shard in self.shards if shard is not seed]
        self.shards = [seed]
        self._close_soon(others)
        self._discovery = ClusterDiscovery(seed.address, timeout_seconds=self._timeout_seconds)
        self.is_cluster = True
        with contextlib.suppress(StoreUnavailable):
            self._use(await self._discovery.masters(self.shards))
        self.refresh()

    def _unreachable(self, shard: Shard) -> StoreUnavailable:
        failure = shard.commands.failure or shard.subscriptions.failure
        reason = str(failure or "").rstrip(".")
        if isinstance(failure, StoreRefused | ssl.SSLError):
            return StoreUnavailable(f"the store at {shard.address} cannot be used: {reason}")
        return StoreUnavailable(
            f"no Redis or Valkey answers at {shard.address} within {self._timeout_seconds:g} s"
            + (f": {reason}" if reason else "")
        )

    async def _wait_all_up(self) -> None:
        for shard in self.shards:
            for link in (shard.commands, shard.subscriptions):
                try:
                    await asyncio.wait_for(link.wait_up(), self._timeout_seconds)
                except TimeoutError:
                    raise self._unreachable(shard) from None

    async def aclose(self) -> None:
        """Close every link; commands in flight are called back with `StoreUnavailable`."""
        if self._refresher is not None:
            self._refresher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refresher
        for shard in self.shards:
            await shard.aclose()
        for task in list(self._closing):
            await task

    @property
    def is_up(self) -> bool:
        return bool(self.shards) and all(shard.is_up for shard in self.shards)

    # --- routing -------------------------------------------------------------------------

    def shard_of(self, key: str) -> Shard:
        """The shard that owns a key (of which only the hash tag counts)."""
        if len(self.shards) == 1:
            return self.shards[0]
        return self._slots[key_slot(key.encode())]

    def run_script(
        self, script: Script, keys: Sequence[Arg], args: Sequence[Arg], done: Done
    ) -> None:
        """Run a script on the shard of its first key; `done` as in `RespConnection.submit`."""
        link = self.shard_of(str(keys[0])).commands
        if not self.is_cluster:
            link.submit_script(script, keys, args, done)
            return

        def moved(reply: Any) -> None:
            target = self._redirect(reply)
            if target is None or script.keeps_order:
                done(reply)
            else:
                target.submit_script(script, keys, args, done)

        link.submit_script(script, keys, args, moved)

    def submit(
        self, key: str, args: Sequence[Arg], done: Done, *, keeps_order: bool = False
    ) -> None:
        """Send a command to the shard of `key`; `done` as in `RespConnection.submit`.

        Args:
            keeps_order: a later command may not overtake it, so it is refused instead of sent again to
                the other server.
        """
        link = self.shard_of(key).commands
        if not self.is_cluster:
            link.submit(args, done)
            return

        def moved(reply: Any) -> None:
            target = self._redirect(reply)
            if target is None or keeps_order:
                done(reply)
            else:
                target.submit(args, done)

        link.submit(args, moved)

    async def call_script(self, script: Script, keys: Sequence[Arg], args: Sequence[Arg]) -> Any:
        """Run a script and wait for its reply; raises as `Link.call` does."""
        return await wait_for(lambda done: self.run_script(script, keys, args, done))

    async def call(self, key: str, *args: Arg) -> Any:
        """Send a command to the shard of `key`; raises as `Link.call` does."""
        return await wait_for(lambda done: self.submit(key, args, done))

    def _redirect(self, reply: Any) -> Link | None:
        if not isinstance(reply, StoreRefused) or not str(reply).startswith("MOVED "):
            return None
        self.refresh()
        host, port = str(reply).split()[2].rsplit(":", 1)
        shard = self._shard_at(self.shards[0].address.at(host, int(port)))
        return shard.commands if shard is not None and shard.commands.is_up else None

    def _shard_at(self, address: Address) -> Shard | None:
        return next((shard for shard in self.shards if shard.address == address), None)

    # --- changes -------------------------------------------------------------------------

    def messages_received(self, shard: Shard, messages: list[Any]) -> None:
        self.subscriptions.messages_received(shard, messages)

    def subscriptions_up(self, shard: Shard) -> None:
        self.subscriptions.link_up(shard)

    def link_lost(self, shard: Shard) -> None:
        if self._discovery.can_change:
            self.refresh()

    def refresh(self) -> None:
        """Ask for the masters soon, after a failover or a moved slot."""
        self._refresh_wanted.set()

    async def _keep_fresh(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._discovery.recheck_seconds):
                    await self._refresh_wanted.wait()
            self._refresh_wanted.clear()
            try:
                self._use(await self._discovery.masters(self.shards))
            except (StoreError, OSError) as error:
                log.debug("topology_not_read", reason=str(error))
            except Exception:
                # Go on, whatever a server answered: later answers may be right.
                log.exception("topology_not_understood")
            if not self.is_up:
                self._refresh_wanted.set()
            await asyncio.sleep(_REFRESH_SECONDS)

    def _use(self, masters: Sequence[Master]) -> None:
        """Connect to new masters, and close the links to servers that are masters no longer."""
        slots: list[Shard | None] = [None] * SLOTS
        present: list[Shard] = []
        for master in masters:
            shard = self._shard_at(master.address)
            if shard is None:
                shard = Shard(master.address, self, self._timeout_seconds)
                shard.start()
            present.append(shard)
            for owned in master.slots:
                slots[owned.start : owned.stop : owned.step] = [shard] * len(owned)
        # A slot that no master owns is asked for at any of them, which refuses it.
        settled = [shard if shard is not None else present[0] for shard in slots]
        left = [shard for shard in self.shards if shard not in present]
        has_moved = settled != self._slots
        self.shards = present
        self._slots = settled
        self._close_soon(left)
        if has_moved:
            self.subscriptions.slots_moved()

    def _close_soon(self, shards: Sequence[Shard]) -> None:
        for shard in shards:
            task = asyncio.get_running_loop().create_task(shard.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


async def _is_cluster(link: Link) -> bool:
    try:
        info = await link.call("INFO", "cluster")
    except StoreRefused:
        return False
    return b"cluster_enabled:1" in info
