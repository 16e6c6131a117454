"""Finds what a failover has lost although nobody was there to see it, and gives those channels a new epoch.

A replica that becomes the master may lack what was acknowledged last, and gives the offsets of it to other
publications. A worker with subscribers compares what they got last (`cluster.node.channels`). Here it
compares what was acknowledged to it, or delivered before its last subscriber left, in other channels:
subscribers at other workers, and clients that come back later, would otherwise miss it and not know.

Guarantees: everything that a worker remembers (`REMEMBERED`) is compared each time a connection leads to
another master, or to data with another history; what is lost ends its channel's epoch, and every worker is
told. If the new master is lost meanwhile, all is compared again with the next one. Publications that only
workers knew which have died with the old master are not noticed.
"""

from __future__ import annotations

import asyncio
from typing import Final

from cluster.broker import Acknowledged, HistoryPolicy, StreamRead
from cluster.broker.redis_broker import RedisBroker
from cluster.errors import StoreError
from cluster.log import get_logger
from cluster.metrics.counters import Counters
from cluster.resp.shard import Shard

log = get_logger()

#: Reads that are sent at a time.
_BATCH: Final = 100
#: How far behind a replica may be that is promoted: the default of `min-replicas-max-lag`. Of what is
#: younger, a stream must have the proof; what is older is lost only if the stream shows it.
_LAG_SECONDS: Final = 10.0
#: Nothing is kept longer because it is read here.
_AS_IT_IS: Final = HistoryPolicy(0, 0, 0)


class LossCheck:
    """Compares what one worker remembers with each new master."""

    def __init__(self, broker: RedisBroker, counters: Counters, *, timeout_seconds: float) -> None:
        self._broker = broker
        self._counters = counters
        self._timeout_seconds = timeout_seconds
        # By address: the replication id of the data that was compared last.
        self._compared: dict[str, str] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def connected(self, shard: Shard) -> None:
        """Compare with a server, unless its data is what was compared with before."""
        address, data = str(shard.address), shard.commands.identity.replication_id
        if data is not None and self._compared.get(address) == data:
            return
        remembered = self._broker.remembered(shard)
        if (before := self._tasks.pop(address, None)) is not None:
            before.cancel()
        self._compared[address] = data or ""
        if remembered:
            work = self._compare(address, remembered)
            self._tasks[address] = asyncio.get_running_loop().create_task(work, name="losses")

    async def _compare(self, address: str, remembered: dict[str, Acknowledged]) -> None:
        last = max(one.at for one in remembered.values())
        lost, items = 0, list(remembered.items())
        try:
            for first in range(0, len(items), _BATCH):
                async with asyncio.timeout(self._timeout_seconds):
                    found = await asyncio.gather(
                        *(
                            self._is_lost(channel, one, must_be_there=last - one.at <= _LAG_SECONDS)
                            for channel, one in items[first : first + _BATCH]
                        )
                    )
                lost += sum(found)
        except (StoreError, TimeoutError):
            # The link reports it; the next connection compares again.
            self._compared.pop(address, None)
        if lost:
            self._counters.errors["broker"] += lost
            log.error("acknowledged_publications_lost", server=address, channels=lost)

    async def _is_lost(self, channel: str, one: Acknowledged, *, must_be_there: bool) -> bool:
        """Whether the store has lost a publication; its channel has a new epoch then."""
        read = await self._broker.read(
            channel, _AS_IT_IS, since=one.position.offset - 1, limit=1, leaves_epoch=False
        )
        lost = is_lost(one, read, must_be_there=must_be_there)
        if lost:
            await self._broker.renew_epoch(channel, one.position.epoch)
        return lost

    async def aclose(self) -> None:
        """Stop comparing."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def is_lost(one: Acknowledged, read: StreamRead, *, must_be_there: bool) -> bool:
    """Whether a stream lacks a publication, or has another one with its offset.

    Args:
        read: the first publication with this offset or a later one.
        must_be_there: whether it counts as lost if the stream no longer has that offset.
    """
    position = one.position
    if read.top.epoch != position.epoch:
        return False  # Whoever knows the old epoch is told.
    if read.top.offset < position.offset:
        return True
    if read.publications and read.publications[0].offset == position.offset:
        return hash(read.publications[0].body) != one.body_hash
    return must_be_there
