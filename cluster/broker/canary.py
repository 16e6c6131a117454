"""Is the worker deaf? A message of its own to every master, which it must hear.

A subscription can die in silence: the connection stands, publishes work, nothing comes. So each
worker publishes a canary per master about once a second on a shard channel of its own and listens
for it. Not heard for `deaf_after_seconds`, the subscription's connection is made anew.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from cluster.log import get_logger
from cluster.resp.router import Router
from cluster.resp.shard import Shard
from cluster.resp.subscriptions import Subscriptions

log = get_logger()


class Canary:
    """Watches the subscriptions of one worker.

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
        self._prefix = prefix
        self._name = name
        self._interval_seconds = interval_seconds
        self._deaf_after_seconds = deaf_after_seconds
        self._keys: dict[str, str] = {}
        self._heard_at: dict[str, float] = {}
        self._reset_at: dict[str, float] = {}
        self._loop = asyncio.get_running_loop()
        self.last_heard_timestamp = time.time()

    @property
    def is_deaf(self) -> bool:
        """Whether a master's canary has not been heard for too long."""
        now = self._loop.time()
        return any(now - heard > self._deaf_after_seconds for heard in self._heard_at.values())

    async def run(self) -> None:
        """Sing until cancelled."""
        while True:
            self._sing()
            await asyncio.sleep(self._interval_seconds)

    def _sing(self) -> None:
        now = self._loop.time()
        self._follow_masters(now)
        for shard in self._router.shards:
            address = str(shard.address)
            key = self._keys[address]
            shard.commands.submit(("SPUBLISH", key, b"canary"), _forget)
            silent = now - self._heard_at[address]
            since_reset = now - self._reset_at.get(address, self._heard_at[address])
            if min(silent, since_reset) > self._deaf_after_seconds and shard.subscriptions.is_up:
                log.error("subscription_silent", server=address, seconds=round(silent, 1))
                self._reset_at[address] = now
                shard.subscriptions.reset()
        self._subscriptions.retry_unconfirmed()
        oldest = min(self._heard_at.values(), default=now)
        self.last_heard_timestamp = time.time() - (now - oldest)

    def _follow_masters(self, now: float) -> None:
        present = {str(shard.address): shard for shard in self._router.shards}
        for address in [address for address in self._keys if address not in present]:
            self._subscriptions.unsubscribe(self._keys.pop(address))
            self._heard_at.pop(address, None)
        for address, shard in present.items():
            key = self._keys.get(address)
            if key is not None and self._router.shard_of(key) is shard:
                continue
            if key is not None:
                self._subscriptions.unsubscribe(key)
            self._keys[address] = key = self._key_on(shard)
            self._heard_at[address] = now
            self._subscriptions.subscribe(key, address, self._heard)

    def _key_on(self, shard: Shard) -> str:
        number = 0
        while True:
            key = f"{{{self._prefix}:canary:{self._name}:{number}}}.pub"
            if self._router.shard_of(key) is shard:
                return key
            number += 1

    def _heard(self, address: str, payloads: list[bytes]) -> None:
        self._heard_at[address] = self._loop.time()


def _forget(reply: Any) -> None:
    """Ignore the reply: a canary that could not be sent is one that is not heard."""
