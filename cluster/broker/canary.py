"""Checks that a worker's subscriptions deliver: it sends itself a message through every master.

A subscription can fail without an error: the connection is open, publishes work, nothing arrives. So
each worker publishes a canary message per master about once a second on a shard channel of its own.
If none has arrived for `deaf_after_seconds`, the subscription's connection is made anew.

A replica passes messages on, too. So each canary message follows a write that changes nothing, and as
long as a master refuses it the worker is deaf to it, and asks again which masters there are: another server
may take the writes.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any, Final

from cluster.errors import StoreError, StoreRefused
from cluster.log import get_logger
from cluster.resp.keys import KIND_INTERNAL, tag_on
from cluster.resp.router import Router
from cluster.resp.shard import Shard
from cluster.resp.subscriptions import Subscriptions

log = get_logger()

#: The key of the write is elsewhere, which says nothing about the master.
_SLOT_MOVES: Final = frozenset({"ASK", "MOVED", "TRYAGAIN"})


class Canary:
    """Sends canary messages through every master and notes when they arrive.

    Args:
        name: unique to this worker among all that share the store.
    """

    def __init__(
        self,
        router: Router,
        subscriptions: Subscriptions,
        *,
        prefix: str,
        name: str,
        interval_seconds: float,
        deaf_after_seconds: float,
    ) -> None:
        self._router = router
        self._subscriptions = subscriptions
        # In a hash tag a brace would end it.
        inner = name.replace("{", "(").replace("}", ")")
        self._start = f"{prefix}:{KIND_INTERNAL}:canary:{inner}:"
        self._interval_seconds = interval_seconds
        self._deaf_after_seconds = deaf_after_seconds
        self._keys: dict[str, str] = {}
        self._received_at: dict[str, float] = {}
        self._reset_at: dict[str, float] = {}
        self._refused: set[str] = set()
        self._loop = asyncio.get_running_loop()
        self.last_heard_timestamp = time.time()

    @property
    def is_deaf(self) -> bool:
        """Whether one of the masters refuses writes, or no canary message has arrived for too long."""
        if self._refused:
            return True
        now = self._loop.time()
        return any(
            now - received > self._deaf_after_seconds for received in self._received_at.values()
        )

    async def run(self) -> None:
        """Send canary messages until cancelled."""
        while True:
            self._send_all()
            await asyncio.sleep(self._interval_seconds)

    def _send_all(self) -> None:
        now = self._loop.time()
        self._follow_masters(now)
        for shard in self._router.shards:
            address = str(shard.address)
            if (key := self._keys.get(address)) is None:
                continue
            shard.commands.submit(("PEXPIRE", key, 1000), partial(self._written, shard))
            shard.commands.submit(("SPUBLISH", key, b"canary"), _forget)
            silent = now - self._received_at[address]
            since_reset = now - self._reset_at.get(address, self._received_at[address])
            if min(silent, since_reset) > self._deaf_after_seconds and shard.subscriptions.is_up:
                log.error("subscription_silent", server=address, seconds=round(silent, 1))
                self._reset_at[address] = now
                shard.subscriptions.reset()
        self._subscriptions.retry_unconfirmed()
        oldest = min(self._received_at.values(), default=now)
        self.last_heard_timestamp = time.time() - (now - oldest)

    def _follow_masters(self, now: float) -> None:
        present = {str(shard.address): shard for shard in self._router.shards}
        for address in [address for address in self._keys if address not in present]:
            self._leave(address)
        for address, shard in present.items():
            key = self._keys.get(address)
            if key is not None and self._router.shard_of(key) is shard:
                continue
            tag = tag_on(self._router, shard, self._start)
            if key is not None and tag is None:
                self._leave(address)
            elif key is not None:
                self._subscriptions.unsubscribe(key)
            if tag is not None:
                self._keys[address] = key = f"{tag}.pub"
                self._received_at[address] = now
                self._subscriptions.subscribe(key, address, self._received, goes_first=True)

    def _leave(self, address: str) -> None:
        self._subscriptions.unsubscribe(self._keys.pop(address))
        self._received_at.pop(address, None)
        self._refused.discard(address)

    def _written(self, shard: Shard, reply: Any) -> None:
        address = str(shard.address)
        if isinstance(reply, StoreRefused):
            self._router.refresh()
        elif not isinstance(reply, StoreError):
            shard.is_cut_off = False
        if isinstance(reply, StoreRefused) and reply.kind not in _SLOT_MOVES:
            if address in self._keys and address not in self._refused:
                self._refused.add(address)
                log.warning("store_refuses_writes", server=address, reason=str(reply))
        elif not isinstance(reply, StoreError) and address in self._refused:
            self._refused.discard(address)
            log.info("store_takes_writes", server=address)

    def _received(self, address: str, payloads: list[bytes]) -> None:
        self._received_at[address] = self._loop.time()


def _forget(reply: Any) -> None:
    """Ignore the reply: a message that could not be sent does not arrive."""
