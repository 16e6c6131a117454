"""Which servers are masters, and which slots each of them owns.

Rules: a key's hash tag decides its slot (CRC16, 16,384 slots, as Redis Cluster has it), and every
slot has one master. With several URLs of single servers that is `slot % count`; a Redis Cluster is
asked for its own map. `cluster.resp.sentinel` has the third source.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

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
        recheck_seconds: how often to ask without a reason; None if a change is always noticed.
    """

    can_change: bool
    recheck_seconds: float | None

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
    recheck_seconds: float | None = None

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses

    async def masters(self, shards: Sequence[Shard]) -> Sequence[Master]:
        count = len(self._addresses)
        return [
            Master(address, (range(number, SLOTS, count),))
            for number, address in enumerate(self._addresses)
        ]


class ClusterDiscovery:
    """The masters of a Redis Cluster, by CLUSTER SLOTS from a node that answers.

    A master that only its clients still reach answers with the map that it had, in which it owns the slots of
    its promoted replica. So nodes that say they are cut off are asked last.

    Args:
        seed: its credentials and options hold for every node.
    """

    can_change = True
    recheck_seconds: float | None = None

    def __init__(self, seed: Address, *, timeout_seconds: float) -> None:
        self._seed = seed
        self._timeout_seconds = timeout_seconds

    async def masters(self, shards: Sequence[Shard]) -> Sequence[Master]:
        reason = ""
        for shard in sorted(shards, key=lambda shard: shard.is_cut_off):
            if not shard.commands.is_up:
                continue
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    reply = await shard.commands.call("CLUSTER", "SLOTS")
                if masters := self._parsed(reply, shard.address):
                    return masters
            except (StoreError, TimeoutError) as error:
                reason = f": {error}" if str(error) else ""
        raise StoreUnavailable(f"no node of the Redis Cluster answers CLUSTER SLOTS{reason}")

    def _parsed(self, reply: object, node: Address) -> list[Master]:
        try:
            return self._parse(reply, node.host)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise StoreUnavailable(
                f"{node} answers CLUSTER SLOTS with something else: {error}"
            ) from None

    def _parse(self, reply: object, host: str) -> list[Master]:
        # Slow to import, and not needed for a single server.
        from redis.cluster import parse_cluster_slots

        owned: dict[tuple[str, int], list[range]] = {}
        # A node that does not know its own name leaves it empty: it is the one that was asked.
        for (first, last), nodes in parse_cluster_slots(reply, current_host=host).items():
            owned.setdefault(nodes["primary"], []).append(range(first, last + 1))
        return [
            Master(self._seed.at(host, port), tuple(ranges))
            for (host, port), ranges in owned.items()
        ]
