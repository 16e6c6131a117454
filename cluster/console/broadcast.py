"""One collection for all viewers, which runs only while there are any.

Rules
- A viewer has no queue: if it reads slowly it misses frames, and gets the newest when it reads again.
- If the collection fails, every viewer's stream ends; the next viewer starts the collection again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

from cluster import log

Publish = Callable[[str, bytes], None]
Collection = Callable[[Publish], Coroutine[Any, Any, None]]


class TooManyViewers(Exception):
    """The limit of viewers is reached."""


class Broadcast:
    """Gives the newest frame of each kind to every viewer.

    Args:
        collect: runs while there is a viewer; it is passed a function to call with each frame.
        most_viewers: how many viewers without the key there may be at a time.
        kept_places: further viewers, who need the key: others cannot lock out an operator.
    """

    def __init__(self, collect: Collection, *, most_viewers: int, kept_places: int = 0) -> None:
        self._collect = collect
        self._most: Final = most_viewers
        self._kept: Final = kept_places
        self._viewers = 0
        self._keyless = 0
        self._latest: dict[str, tuple[int, bytes]] = {}
        self._number = 0
        self._next_frame = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        self._log = log.get_logger()

    @property
    def is_collecting(self) -> bool:
        """Whether anything is being collected now."""
        return self._task is not None and not self._task.done()

    @contextmanager
    def watching(self, *, has_key: bool = False) -> Iterator[AsyncIterator[bytes]]:
        """Be a viewer; yields the frames from now on.

        Raises:
            TooManyViewers: if the limit is reached.
        """
        is_full = self._viewers >= self._most + self._kept
        if is_full or (not has_key and self._keyless >= self._most):
            raise TooManyViewers
        self._viewers += 1
        self._keyless += not has_key
        if not self.is_collecting:
            self._latest.clear()
            self._task = asyncio.get_running_loop().create_task(self._collect(self._publish))
            self._task.add_done_callback(self._collected)
        try:
            yield self._frames()
        finally:
            self._viewers -= 1
            self._keyless -= not has_key
            if self._viewers == 0 and self._task is not None:
                # The next viewer starts a new collection and does not join the one that is ending.
                self._task.cancel()
                self._task = None

    def close(self) -> None:
        """End every viewer's stream."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
        self._wake()

    async def _frames(self) -> AsyncIterator[bytes]:
        seen: dict[str, int] = {}
        task = self._task
        while not self._is_closed and task is not None and not task.done():
            next_frame = self._next_frame
            for kind, (number, frame) in list(self._latest.items()):
                if seen.get(kind) != number:
                    seen[kind] = number
                    yield frame
            await next_frame.wait()

    def _publish(self, kind: str, frame: bytes) -> None:
        """Replace the newest frame of a kind; an equal frame is not sent again."""
        if self._latest.get(kind, (0, b""))[1] == frame:
            return
        self._number += 1
        self._latest[kind] = (self._number, frame)
        self._wake()

    def _wake(self) -> None:
        # A new event per frame: it is never cleared, so that no viewer can miss it.
        waiting, self._next_frame = self._next_frame, asyncio.Event()
        waiting.set()

    def _collected(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("console_collection_failed", exc_info=error)
        self._wake()
