"""The broker of the control channel over Redis or Valkey.

All of its names share the hash tag `{prefix:i:control}`, so the channel that every worker hears and the
channels of the answers are on one server, also with several shards and in a Redis Cluster.
"""

from __future__ import annotations

from cluster.broker import BrokerListener
from cluster.broker.redis_broker import RedisBroker
from cluster.metrics.counters import Counters
from cluster.resp.keys import KIND_INTERNAL
from cluster.resp.router import Router
from cluster.resp.subscriptions import Subscriptions


class RedisControlBroker(RedisBroker):
    """See `cluster.node.control.ControlBroker`; arguments as those of `RedisBroker`."""

    def __init__(
        self,
        router: Router,
        subscriptions: Subscriptions,
        *,
        prefix: str,
        listener: BrokerListener,
        counters: Counters,
    ) -> None:
        super().__init__(router, subscriptions, prefix=prefix, listener=listener, counters=counters)
        self._tag = f"{{{prefix}:{KIND_INTERNAL}:control}}"

    def _key(self, channel: str, part: str) -> str:
        return f"{self._tag}.{channel}.{part}"

    async def subscribers(self, channel: str) -> int:
        """How many workers are subscribed to a channel, as its server knows.

        Raises:
            StoreError: when the store does not say.
        """
        key = self._key(channel, "pub")
        reply = await self._router.call(key, "PUBSUB", "SHARDNUMSUB", key)
        return int(reply[1])
