"""What a backend reads through the server API: streams and channels, without a client's limits.

A stream is read in pieces of bounded size, so that neither the store nor this worker holds more than
`HISTORY_BYTES` for one request; a reader goes on from the offset of the last publication.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from cluster.broker import READ_MAX_BYTES, Broker, HistoryPolicy, StreamRead
from cluster.config import Config
from cluster.errors import INTERNAL, NOT_AVAILABLE, UNRECOVERABLE_POSITION, StoreError
from cluster.metrics.counters import Counters
from cluster.node.commands import store_failed
from cluster.node.permissions import ChannelPermissions
from cluster.node.reads import StreamReads
from cluster.protocol import HistoryRequest, Publication, publications_json

#: Bytes of publications that one request for history returns at most, unless one alone is larger.
HISTORY_BYTES: Final = 8 << 20


class ServerReads:
    """Reads of one worker on behalf of a backend."""

    def __init__(
        self,
        config: Config,
        permissions: ChannelPermissions,
        broker: Broker,
        reads: StreamReads,
        counters: Counters,
    ) -> None:
        self._timeout_seconds = config.broker.timeout
        self._permissions = permissions
        self._broker = broker
        self._reads = reads
        self._counters = counters

    async def history(self, request: HistoryRequest) -> dict[str, Any]:
        """Read a channel's stream.

        Raises:
            ClientError: 108 without history, 112 for another epoch, 102 or 107 for the channel, 100 when the
                store is unavailable.
        """
        policy = self._policy(request.channel)
        try:
            read = await self._read(request, policy)
        except (StoreError, TimeoutError) as error:
            store_failed(self._counters, "history_failed", error)
            raise INTERNAL.fresh() from None
        since = request.since
        if since is not None and since.epoch and since.epoch != read.top.epoch:
            raise UNRECOVERABLE_POSITION.fresh()
        self._counters.stream_reads["cut"] += read.is_cut
        return {
            "publications": publications_json(read.publications),
            "epoch": read.top.epoch,
            "offset": read.top.offset,
        }

    async def _read(self, request: HistoryRequest, policy: HistoryPolicy) -> StreamRead:
        """Read piece by piece until the limit, the end or `HISTORY_BYTES`."""
        found: list[Publication] = []
        since = request.since.offset if request.since is not None else None
        left, room = request.limit, HISTORY_BYTES
        while True:
            # The reader is this request: it takes its turns among those of the clients.
            async with self._reads.turn(request), asyncio.timeout(self._timeout_seconds):
                read = await self._broker.read(
                    request.channel,
                    policy,
                    since=since,
                    limit=left,
                    reverse=request.reverse,
                    max_bytes=min(room, READ_MAX_BYTES),
                    leaves_epoch=False,
                )
            room -= sum(len(one.body) for one in read.publications)
            if found and room < 0:
                # One that alone is larger than what is left.
                return StreamRead(read.top, found, is_cut=True)
            found += read.publications
            is_done = not read.is_cut or not read.publications
            if is_done or room <= 0:
                return StreamRead(read.top, found, is_cut=not is_done)
            since = found[-1].offset
            if left > 0:
                left -= len(read.publications)

    async def remove_history(self, channel: str) -> None:
        """Remove the publications of a channel's stream; its position stays.

        Raises:
            ClientError: 108 without history, 102 or 107 for the channel, 100 when the store is unavailable.
        """
        self._policy(channel)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._broker.remove_history(channel)
        except (StoreError, TimeoutError) as error:
            store_failed(self._counters, "history_remove_failed", error)
            raise INTERNAL.fresh() from None

    def _policy(self, channel: str) -> HistoryPolicy:
        policy = self._permissions.history(channel)
        if not policy.size:
            raise NOT_AVAILABLE.fresh()
        return policy
