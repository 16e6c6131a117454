"""The master that Sentinel names, asked by redis-py.

Rules: the sentinels are asked in turn and the first that knows the master is believed, as redis-py
does it. Sentinel tells its clients nothing by itself, and a demoted master may accept connections
again, so the question is repeated every `recheck_seconds`.
"""

from __future__ import annotations

from collections.abc import Sequence

from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError

from cluster.config.redis_url import Address
from cluster.errors import StoreUnavailable
from cluster.resp.discovery import SLOTS, Master
from cluster.resp.shard import Shard


class SentinelDiscovery:
    """One master with its replicas, watched by Sentinel.

    Args:
        sentinels: host and port of each.
        name: what Sentinel calls the master.
        master: credentials and options for the master; its host and port are not used.
    """

    can_change = True

    def __init__(
        self,
        sentinels: Sequence[tuple[str, int]],
        name: str,
        master: Address,
        *,
        timeout_seconds: float,
        recheck_seconds: float = 1.0,
    ) -> None:
        self._sentinels = sentinels
        self._name = name
        self._master = master
        self._timeout_seconds = timeout_seconds
        self.recheck_seconds: float | None = recheck_seconds

    async def masters(self, shards: Sequence[Shard]) -> Sequence[Master]:
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            self._sentinels,
            socket_timeout=self._timeout_seconds,
            socket_connect_timeout=self._timeout_seconds,
        )
        try:
            host, port = await sentinel.discover_master(self._name)
        except RedisError as error:
            raise StoreUnavailable(f"Sentinel names no master {self._name}: {error}") from None
        finally:
            for client in sentinel.sentinels:
                await client.aclose()
        return [Master(self._master.at(str(host), int(port)), (range(SLOTS),))]
