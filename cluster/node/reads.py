"""The reads of publications that one worker has in flight at the store: a few per reader, all in turn.

A read of a few bytes may return half a megabyte, which the store, its link and the worker hold at the
same time. So what is in flight is bounded, and the rest waits: the reads of one reader in order, the
readers in turn, so that one that asks for much does not delay the others. Of large replies one is handled
in a turn of the event loop, and a reader of many waits for the next one: the store does nothing else
while it collects a reply.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Final

from cluster.errors import CONNECTION_CLOSED, TOO_MANY_REQUESTS
from cluster.metrics.counters import Counters
from cluster.protocol import Publication

#: A reply with more publications, or more bytes of them, is handled alone (`StreamReads.handled_alone`).
SMALL_PUBLICATIONS: Final = 32
SMALL_BYTES: Final = 16_384

#: What one reader may read in a second, and at once before that, in bytes of large replies. The store
#: needs about as long for one publication as for so many bytes more.
READER_BYTES_PER_SECOND: Final = 2 * 1024 * 1024
READER_BURST_BYTES: Final = 1024 * 1024
PUBLICATION_COST_BYTES: Final = 512
_TIMER_SECONDS: Final = 0.005
_BURST_SECONDS: Final = READER_BURST_BYTES / READER_BYTES_PER_SECOND

#: Reads in flight of one reader; those of a client that subscribes to many channels overlap a little.
READS_PER_READER: Final = 4


class _Reader:
    """What one reader has in flight and waits for.

    Attributes:
        paid_at: loop time at which its large replies no longer count.
        timer: runs at `paid_at`, or when the reader may read again.
    """

    __slots__ = ("in_flight", "is_due", "is_held", "is_paced", "paid_at", "timer", "waiting")

    def __init__(self) -> None:
        self.in_flight = 0
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.is_due = False
        self.is_held = False
        self.is_paced = False
        self.paid_at = 0.0
        self.timer: asyncio.TimerHandle | None = None

    @property
    def may_read(self) -> bool:
        # After a large reply, one at a time: otherwise a pause would end with several together.
        most = READS_PER_READER if self.timer is None else 1
        return self.in_flight < most and not self.is_held and not self.is_paced

    @property
    def is_idle(self) -> bool:
        return not (self.in_flight or self.waiting or self.is_held or self.timer)


class StreamReads:
    """The reads of one worker; a reader is a client, or a channel that misses publications.

    Args:
        limit: most reads in flight together.
    """

    def __init__(self, limit: int, counters: Counters) -> None:
        self._limit = limit
        self._counters = counters
        self._in_flight = 0
        self._readers: dict[object, _Reader] = {}
        self._due: deque[_Reader] = deque()
        self._large = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def turn(self, reader: object, *, within: float | None = None) -> AsyncIterator[None]:
        """Wait until a read may be sent, and count it as in flight meanwhile.

        Args:
            within: longest wait, in seconds; None for as long as it takes. What is read has no limit here.

        Raises:
            ClientError: 111 when no turn has come within that time.
            Disconnect: 3000 when `forget` was called for the reader. No cancellation: a group of tasks takes
                one of a single task for its end, and goes on without its result.
        """
        one = self._readers.get(reader)
        if one is None:
            one = self._readers[reader] = _Reader()
        if self._in_flight < self._limit and one.may_read:
            self._counters.stream_reads["immediate"] += 1
            self._begin(one)
        else:
            self._counters.stream_reads["queued"] += 1
            try:
                async with asyncio.timeout(within):
                    await self._wait(reader, one)
            except TimeoutError:
                raise TOO_MANY_REQUESTS.fresh() from None
        try:
            yield
        finally:
            self._end(reader, one)

    async def handled_alone(self, reader: object, publications: Sequence[Publication]) -> None:
        """Return in a turn of the event loop in which no other large reply is handled.

        The replies of all reads in flight may arrive together. Call it within `turn`; a large reply
        counts towards what the reader may read in a second.
        """
        size = sum(len(one.body) for one in publications)
        if len(publications) <= SMALL_PUBLICATIONS and size <= SMALL_BYTES:
            return
        one = self._readers.get(reader)
        if one is not None:
            self._pace(reader, one, size + PUBLICATION_COST_BYTES * len(publications))
        async with self._large:
            await asyncio.sleep(0)

    async def _wait(self, reader: object, one: _Reader) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        one.waiting.append(future)
        self._schedule(one)
        try:
            await future
        except asyncio.CancelledError:
            if future.cancelled():
                with contextlib.suppress(ValueError):
                    one.waiting.remove(future)
                self._forget_idle(reader, one)
            elif future.exception() is None:
                self._end(reader, one)
            raise

    def hold(self, reader: object) -> None:
        """Give a reader no further turn until `resume`: it does not take what it has been sent."""
        self._readers.setdefault(reader, _Reader()).is_held = True

    def resume(self, reader: object) -> None:
        """End `hold`."""
        one = self._readers.get(reader)
        if one is not None:
            one.is_held = False
            self._schedule(one)
            self._forget_idle(reader, one)
            self._grant()

    def forget(self, reader: object) -> None:
        """Refuse what waits for a reader that has gone: nothing is read for it any more."""
        one = self._readers.get(reader)
        if one is None:
            return
        one.is_held = one.is_paced = False
        if one.timer is not None:
            one.timer.cancel()
            one.timer = None
        waiting = list(one.waiting)
        one.waiting.clear()
        self._counters.stream_reads["dropped"] += len(waiting)
        for future in waiting:
            if not future.done():
                future.set_exception(CONNECTION_CLOSED.fresh())
        self._forget_idle(reader, one)

    def _pace(self, reader: object, one: _Reader, cost: int) -> None:
        """Count a large reply; with too many of them the reader waits (the generic cell rate algorithm)."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        one.paid_at = max(one.paid_at, now) + cost / READER_BYTES_PER_SECOND
        if one.paid_at - now > _BURST_SECONDS and not one.is_paced:
            one.is_paced = True
            self._counters.stream_reads["paced"] += 1
            if one.timer is not None:
                one.timer.cancel()
                one.timer = None
        if one.timer is None:
            self._set_timer(reader, one, loop)

    def _set_timer(self, reader: object, one: _Reader, loop: asyncio.AbstractEventLoop) -> None:
        at = one.paid_at - _BURST_SECONDS if one.is_paced else one.paid_at
        one.timer = loop.call_at(at, self._timer_due, reader, one)

    def _timer_due(self, reader: object, one: _Reader) -> None:
        loop = asyncio.get_running_loop()
        one.timer = None
        # A timer of uvloop may be a millisecond early, and the reader may have read on.
        debt = one.paid_at - loop.time() - _TIMER_SECONDS
        if debt <= _BURST_SECONDS:
            one.is_paced = False
        if debt > 0:
            self._set_timer(reader, one, loop)
        self._schedule(one)
        self._grant()
        self._forget_idle(reader, one)

    def _begin(self, one: _Reader) -> None:
        self._in_flight += 1
        one.in_flight += 1

    def _end(self, reader: object, one: _Reader) -> None:
        self._in_flight -= 1
        one.in_flight -= 1
        self._schedule(one)
        self._forget_idle(reader, one)
        self._grant()

    def _forget_idle(self, reader: object, one: _Reader) -> None:
        if one.is_idle and self._readers.get(reader) is one:
            del self._readers[reader]

    def _schedule(self, one: _Reader) -> None:
        if one.waiting and one.may_read and not one.is_due:
            one.is_due = True
            self._due.append(one)

    def _grant(self) -> None:
        while self._due and self._in_flight < self._limit:
            one = self._due.popleft()
            one.is_due = False
            while one.waiting and one.may_read:
                future = one.waiting.popleft()
                if not future.done():
                    self._begin(one)
                    future.set_result(None)
                    break
            self._schedule(one)
