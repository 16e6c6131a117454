"""The master that Sentinel names, asked by redis-py.

Rules: the sentinels are asked in turn and the first that knows the master is believed, as redis-py
does it. Sentinel tells its clients nothing by itself, and a demoted master may accept connections
again, so the question is repeated every `recheck_seconds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.exceptions import RedisError

from cluster.config.sentinel_url import SentinelAddress
from cluster.errors import StoreUnavailable
from cluster.resp.discovery import SLOTS, Master
from cluster.resp.shard import Shard


class SentinelDiscovery:
    """One master with its replicas, watched by Sentinel."""

    can_change = True

    def __init__(
        self, address: SentinelAddress, *, timeout_seconds: float, recheck_seconds: float = 1.0
    ) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds
        self.recheck_seconds: float | None = recheck_seconds

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "socket_timeout": self._timeout_seconds,
            "socket_connect_timeout": self._timeout_seconds,
        }
        if self._address.password:
            options["username"] = self._address.username or None
            options["password"] = self._address.password
        if self._address.master.tls:
            given = self._address.master.tls_options
            options["ssl"] = True
            options.update({n: list(v) if isinstance(v, tuple) else v for n, v in given})
        return options

    async def masters(self, shards: Sequence[Shard]) -> Sequence[Master]:
        name = self._address.name
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            self._address.sentinels, sentinel_kwargs=self._options()
        )
        try:
            host, port = await sentinel.discover_master(name)
        except RedisError as error:
            # redis-py's text names its own objects, and of a failure only the class.
            reasons = [
                await self._reason(sentinel, number, error)
                for number in range(len(sentinel.sentinels))
            ]
            raise StoreUnavailable(
                f"Sentinel names no master {name}: {'; '.join(reasons)}"
            ) from None
        finally:
            for client in sentinel.sentinels:
                await client.aclose()
        return [Master(self._address.master.at(str(host), int(port)), (range(SLOTS),))]

    async def _reason(self, sentinel: Sentinel, number: int, error: RedisError) -> str:
        """Why one of the sentinels has named no master."""
        host, port = self._address.sentinels[number]
        if not isinstance(error, MasterNotFoundError):
            return f"{host}:{port}: {error}"
        try:
            known = await sentinel.sentinels[number].sentinel_masters()
        except (RedisError, OSError) as failure:
            return f"{host}:{port}: {failure}"
        if self._address.name not in known:
            return f"{host}:{port} knows {', '.join(map(str, known)) or 'none'}"
        return f"{host}:{port} says that it is down"
