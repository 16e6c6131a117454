"""Which servers are masters, and which slots each of them owns.

Rules: a key's hash tag decides its slot (CRC16, 16,384 slots, as Redis Cluster has it), and every
slot has one master. With several URLs of single servers that is `slot % count`; a Redis Cluster is
asked for its own map. Another source, such as Sentinel, is another `Discovery`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from redis.cluster import parse_cluster_slots

from cluster.config.redis_url import Address
from cluster.errors import StoreError, StoreUnavailable
from cluster.resp.shard import Shard

SLOTS: Final = 16_384


@dataclass(frozen=True, slots=True)
class Master:
    """A server that takes writes, and the slots it owns."""

    address: Address
    slots: tuple[range, ...]


class Discovery(Protocol):
    """A source of the masters.

    Attributes:
        can_change: whether a later answer may differ, after a failover or a moved slot.
    """

    can_change: bool

    async def masters(self, shards: Sequence[Shard]) -> Sequence[Master]:
        """Return the present masters, at least one.

        Args:
            shards: the servers that are connected or connecting, which may be asked.

        Raises:
            StoreUnavailable: if no server answers; the masters last known stay in use.
        """


class StaticDiscovery:
    """The servers of the configuration, as shards by slot."""

    can_change = False

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses

    async def masters(self, shards: Sequence[Shard]) -> Sequence[Master]:
        count = len(self._addresses)
        return [
            Master(address, (range(number, SLOTS, count),))
            for number, address in enumerate(self._addresses)
        ]


class ClusterDiscovery:
    """The masters of a Redis Cluster, by CLUSTER SLOTS from any node that answers.

    Args:
        seed: its credentials and options hold for every node.
    """

    can_change = True

    def __init__(self, seed: Address, *, timeout_seconds: float) -> None:
        self._seed = seed
        self._timeout_seconds = timeout_seconds

    async def masters(self, shards: Sequence[Shard]) -> Sequence[Master]:
        for shard in shards:
            if not shard.commands.is_up:
                continue
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(self._timeout_seconds):
                    reply = await shard.commands.call("CLUSTER", "SLOTS")
                if masters := self._parse(reply, shard.address.host):
                    return masters
        raise StoreUnavailable("no node of the Redis Cluster answers CLUSTER SLOTS")

    def _parse(self, reply: object, host: str) -> list[Master]:
        owned: dict[tuple[str, int], list[range]] = {}
        # A node that does not know its own name leaves it empty: it is the one that was asked.
        for (first, last), nodes in parse_cluster_slots(reply, current_host=host).items():
            owned.setdefault(nodes["primary"], []).append(range(first, last + 1))
        return [
            Master(self._seed.at(host, port), tuple(ranges))
            for (host, port), ranges in owned.items()
        ]
