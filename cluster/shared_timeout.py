"""`asyncio.timeout` for very many short waits of one length: they share a timer.

A connect and a subscribe wait for the store once each, and after a roll all clients do both at once
(docs/adr/0007). A timer of its own costs a wait more than everything else about waiting; here entering
and leaving is an entry in a dict.

Guarantees, as those of `asyncio.timeout`: a wait that takes longer is cancelled and ends with `TimeoutError`,
not before its time and at the loop's next turn after it; a cancellation from outside remains one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from types import TracebackType
from typing import Final


class SharedTimeout:
    """Bounds waits in tasks of one event loop: `with timeout(): await …`.

    Args:
        seconds: from entering the context.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # One length for all: in the order of their ends. Finding the first of a plain dict takes
        # longer the more have left it.
        self._waits: OrderedDict[_Wait, None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self) -> _Wait:
        return _Wait(self)

    def waits(self) -> list[_Wait]:
        """Those that have not ended, in the order of their ends."""
        return list(self._waits)

    def enter(self, wait: _Wait) -> float:
        """Begin a wait; returns the loop's time at which it ends."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._seconds
        self._waits[wait] = None
        if self._timer is None:
            self._timer = loop.call_at(ends_at, self._expire)
        return ends_at

    def leave(self, wait: _Wait) -> None:
        """Forget a wait. The timer stays: at its time there are others, or none."""
        self._waits.pop(wait, None)

    def _expire(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._waits:
            wait = next(iter(self._waits))
            if wait.ends_at > now:
                self._timer = loop.call_at(wait.ends_at, self._expire)
                return
            del self._waits[wait]
            wait.expire()


class _Wait:
    """One wait; entered once."""

    __slots__ = ("_cancelling", "_is_expired", "_task", "_timeout", "ends_at")

    def __init__(self, timeout: SharedTimeout) -> None:
        self._timeout: Final = timeout
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._is_expired = False
        self.ends_at = 0.0

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a timeout is for a task")
        self._task = task
        self._cancelling = task.cancelling()
        self.ends_at = self._timeout.enter(self)

    def expire(self) -> None:
        """Cancel what waits."""
        self._is_expired = True
        if self._task is not None:
            self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timeout.leave(self)
        if not self._is_expired or self._task is None:
            return
        # Whoever else has cancelled the task wants it cancelled, and not told of a timeout.
        only_by_timeout = self._task.uncancel() <= self._cancelling
        if only_by_timeout and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error
