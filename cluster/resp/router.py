"""Commands go to the server that owns their key, wherever that is at the moment.

Rules: `Discovery` says which masters there are and which slots each owns; one that can change is
followed as soon as a server is lost, contradicts the map or says that it is cut off. The URLs of a Redis Cluster are its
seeds. What its nodes redirect is followed by `Redirects`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from cluster.config.redis_url import Address
from cluster.config.sentinel_url import SentinelAddress, is_sentinel_url
from cluster.errors import StoreDenied, StoreError, StoreRefused, StoreUnavailable
from cluster.log import get_logger
from cluster.resp.ask_redirection import ask_before
from cluster.resp.discovery import (
    SLOTS,
    ClusterDiscovery,
    Discovery,
    Master,
    StaticDiscovery,
)
from cluster.resp.link import Arg, Done, Link, wait_for
from cluster.resp.redirects import Redirects
from cluster.resp.scripts import Script
from cluster.resp.shard import Shard
from cluster.resp.subscriptions import Subscriptions

log = get_logger()

_REFRESH_SECONDS = 0.5
#: How long a node that was named by a redirection may own no slot.
_NAMED_SECONDS = 60.0


class Router:
    """The shards of a store, the slot map, and the subscriptions kept over both.

    Attributes:
        is_cluster: whether the servers are the masters of one Redis Cluster, which answer MOVED.
        subscriptions: the shard channels this process wants; see `Subscriptions`.

    Args:
        urls: one server or cluster, or several servers as shards.
        discovery: names the masters instead of the URLs.
        on_link_lost: called each time a connection to a server is lost, whatever the reason.
        on_commands_up: called each time a connection for commands is made, with its server.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        timeout_seconds: float,
        discovery: Discovery | None = None,
        on_link_lost: Callable[[], None] = lambda: None,
        on_commands_up: Callable[[Shard], None] = lambda shard: None,
    ) -> None:
        self._discovery = discovery or _discovery_of(urls, timeout_seconds)
        self._on_link_lost = on_link_lost
        self._on_commands_up = on_commands_up
        self._timeout_seconds = timeout_seconds
        self.is_cluster = False
        self.shards: list[Shard] = []
        self._slots: list[Shard] = []
        self._slot_of: Callable[[bytes], int] = _only_slot
        self._refresh_wanted = asyncio.Event()
        self._refresher: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._redirects = Redirects(self, timeout_seconds=timeout_seconds)
        # Nodes that were named by a redirection, and since when.
        self._named: dict[Shard, float] = {}
        self.subscriptions = Subscriptions(self)

    # --- life ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect to every server; returns when all are reachable.

        Raises:
            StoreUnavailable: if one is not reachable within the timeout; it may be tried again.
            StoreDenied: at once, if one refuses the password and no other can be the store.
        """
        if not self.shards:
            self._use(await self._first_masters())
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

    async def _first_masters(self) -> Sequence[Master]:
        """The masters, which may be named a moment later: as long as a single server may take."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_seconds
        while True:
            try:
                return await self._discovery.masters(())
            except StoreDenied:
                raise
            except StoreUnavailable:
                if loop.time() + _REFRESH_SECONDS > deadline:
                    raise
            await asyncio.sleep(_REFRESH_SECONDS)

    async def _first_up(self) -> Shard:
        """Return the server that is reachable first."""
        denied: list[Shard] = []

        async def first(shard: Shard) -> Shard:
            try:
                await shard.commands.wait_up_or_denied()
            except StoreRefused:
                denied.append(shard)
                if len(denied) < len(self.shards):
                    # Another one may be a node of a cluster, which knows all masters.
                    await shard.commands.wait_up()
            return shard

        waits = [asyncio.ensure_future(first(shard)) for shard in self.shards]
        try:
            done, _ = await asyncio.wait(
                waits, timeout=self._timeout_seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for wait in waits:
                wait.cancel()
        up = next((wait.result() for wait in done if wait.result().commands.is_up), None)
        if up is None:
            raise self._unreachable(denied[0] if denied else self.shards[0])
        return up

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
            is_denial = isinstance(failure, StoreRefused) and failure.is_denial
            kind = StoreDenied if is_denial else StoreUnavailable
            return kind(f"the store at {shard.address} cannot be used: {reason}")
        return StoreUnavailable(
            f"no Redis or Valkey answers at {shard.address} within {self._timeout_seconds:g} s"
            + (f": {reason}" if reason else "")
        )

    async def _wait_all_up(self) -> None:
        for shard in self.shards:
            for link in (shard.commands, shard.subscriptions):
                try:
                    await asyncio.wait_for(link.wait_up_or_denied(), self._timeout_seconds)
                except (TimeoutError, StoreRefused):
                    raise self._unreachable(shard) from None

    async def aclose(self) -> None:
        """Close every link; commands in flight are called back with `StoreUnavailable`."""
        if self._refresher is not None:
            self._refresher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refresher
        await self._redirects.aclose()
        for shard in (*self.shards, *self._named):
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
        return self._slots[self._slot_of(key.encode())]

    def slot_of(self, shard: Shard) -> int | None:
        """A slot that a shard owns, None if it owns none."""
        return self._slots.index(shard) if shard in self._slots else None

    def run_script(
        self, script: Script, keys: Sequence[Arg], args: Sequence[Arg], done: Done
    ) -> None:
        """Run a script on the shard of its first key; `done` as in `RespConnection.submit`."""
        if not self.is_cluster:
            self.shard_of(str(keys[0])).commands.submit_script(script, keys, args, done)
            return

        def send(link: Link, follows_ask: bool, answered: Done) -> None:
            link.submit_script(script, keys, args, answered, follows_ask=follows_ask)

        self._redirects.submit(str(keys[0]), send, done, keeps_order=script.keeps_order)

    def submit(
        self, key: str, args: Sequence[Arg], done: Done, *, keeps_order: bool = False
    ) -> None:
        """Send a command to the shard of `key`; `done` as in `RespConnection.submit`.

        Args:
            keeps_order: a later command of the key may not overtake it; see `Redirects`.
        """
        if not self.is_cluster:
            self.shard_of(key).commands.submit(args, done)
            return

        def send(link: Link, follows_ask: bool, answered: Done) -> None:
            link.submit(args, ask_before(link.submit, answered) if follows_ask else answered)

        self._redirects.submit(key, send, done, keeps_order=keeps_order)

    async def call_script(self, script: Script, keys: Sequence[Arg], args: Sequence[Arg]) -> Any:
        """Run a script and wait for its reply; raises as `Link.call` does."""
        return await wait_for(lambda done: self.run_script(script, keys, args, done))

    async def call(self, key: str, *args: Arg) -> Any:
        """Send a command to the shard of `key`; raises as `Link.call` does."""
        return await wait_for(lambda done: self.submit(key, args, done))

    def shard_at(self, address: Address) -> Shard:
        """Return the shard at an address, connecting to it if it is new.

        A node that gets its first slot owns none until the slot has moved.
        """
        shard = self._shard_at(address)
        if shard is None:
            shard = Shard(address, self, self._timeout_seconds)
            shard.start()
            self._named[shard] = asyncio.get_running_loop().time()
        return shard

    def _shard_at(self, address: Address) -> Shard | None:
        known = (*self.shards, *self._named)
        return next((shard for shard in known if shard.address == address), None)

    # --- changes -------------------------------------------------------------------------

    def messages_received(self, shard: Shard, messages: list[Any]) -> None:
        self.subscriptions.messages_received(shard, messages)

    def subscriptions_up(self, shard: Shard) -> None:
        self.subscriptions.link_up(shard)

    def commands_up(self, shard: Shard) -> None:
        self._on_commands_up(shard)

    def link_lost(self, shard: Shard) -> None:
        self._on_link_lost()
        if self._discovery.can_change:
            self.refresh()

    def cut_off(self, shard: Shard) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Ask for the masters soon, after a failover or a moved slot; twice a second at most."""
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
        oldest = asyncio.get_running_loop().time() - _NAMED_SECONDS
        for shard, since in list(self._named.items()):
            if shard in present:
                del self._named[shard]
            elif since < oldest:
                del self._named[shard]
                left.append(shard)
        has_moved = settled != self._slots
        if len(present) > 1:
            # Slow to import, and a single server needs no slots.
            from redis.crc import key_slot

            self._slot_of = key_slot
        self.shards = present
        self._slots = settled
        self._close_soon(left)
        if has_moved:
            self._redirects.order.disturbed()
            self.subscriptions.slots_moved()

    def _close_soon(self, shards: Sequence[Shard]) -> None:
        for shard in shards:
            task = asyncio.get_running_loop().create_task(shard.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def _only_slot(_key: bytes) -> int:
    return 0


def _discovery_of(urls: Sequence[str], timeout_seconds: float) -> Discovery:
    if not any(is_sentinel_url(url) for url in urls):
        return StaticDiscovery([Address.from_url(url) for url in urls])
    # Slow to import, and seldom used.
    from cluster.resp.sentinel import SentinelDiscovery

    [url] = urls
    return SentinelDiscovery(SentinelAddress.from_url(url), timeout_seconds=timeout_seconds)


async def _is_cluster(link: Link) -> bool:
    try:
        info = await link.call("INFO", "cluster")
    except StoreRefused:
        return False
    return isinstance(info, bytes) and b"cluster_enabled:1" in info
