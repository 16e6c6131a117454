"""Calls the handlers of an application, within limits; what fails is counted, logged and error 100.

Rules
- A coroutine may take `app.handler_timeout` seconds, its wait for a place included. At most
  `app.handler_concurrency` handlers of a worker run at a time, and four times as many may wait.
- A handler that takes more than half of its time limit is counted as slow. The limit of a handler that
  asks a backend is the timeout of its proxy, if that is shorter.
- A plain function is called on the event loop and cannot be stopped: it must not block. One that takes
  longer than the limit counts as a failure too, although its answer is used.
- Only `ApplicationError` and `ApplicationDisconnect` reach the client, because their codes were checked
  where they were made; any other exception is a failure of the handler. So is a `CancelledError` of its own.
- Each failure is counted. Its traceback is logged once, ten of them per second and worker at most.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from cluster.application.handler_values import (
    ApplicationDisconnect,
    ApplicationError,
    HandlerRefusal,
)
from cluster.config import AppConfig
from cluster.errors import INTERNAL
from cluster.log import get_logger
from cluster.metrics.catalogue import LIMITED_HANDLER_KINDS
from cluster.metrics.counters import Counters

log = get_logger()

WAITING_PER_PLACE: Final = 4
_LOGGED_PER_SECOND: Final = 10
_SLOW_SHARE: Final = 0.5

Handler = Callable[..., Any]


class HandlerCalls:
    """The calls of one worker.

    Args:
        limits: seconds that handlers may take by their kind, where `app.handler_timeout` is not reached.

    Attributes:
        most_requests: HTTP requests that may be in progress; see `http_errors`.
    """

    def __init__(
        self, options: AppConfig, counters: Counters, *, limits: Mapping[str, float] | None = None
    ) -> None:
        self._counters = counters
        self._timeout_seconds = options.handler_timeout
        limits = limits or {}
        self._slow_seconds = {
            kind: _SLOW_SHARE * min(options.handler_timeout, limits.get(kind, float("inf")))
            for kind in LIMITED_HANDLER_KINDS
        }
        self.most_requests = options.http_concurrency
        self._places = asyncio.Semaphore(options.handler_concurrency)
        self._most = (1 + WAITING_PER_PLACE) * options.handler_concurrency
        self._in_progress = 0
        self._second = 0.0
        self._logged = 0
        self._not_logged = 0
        self._idle = asyncio.Event()

    async def call(
        self,
        kind: str,
        handler: Handler,
        *arguments: Any,
        finish: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Call a handler; returns its answer, or what `finish` makes of it.

        Args:
            kind: one of `catalogue.HANDLER_KINDS`.
            finish: what it raises counts as a failure of the handler.

        Raises:
            ClientError, Disconnect: what the handler raises for the client; 100 if it fails.
        """
        if self._in_progress >= self._most:
            self.failed(kind, handler, "overload", None)
            raise INTERNAL.fresh()
        self._in_progress += 1
        began = time.monotonic()
        limit = asyncio.timeout(self._timeout_seconds)
        try:
            async with limit, self._places:
                since = time.monotonic()
                answer = handler(*arguments)
                if inspect.isawaitable(answer):
                    answer = await answer
                elif time.monotonic() - since > self._timeout_seconds:
                    self.failed(kind, handler, "timeout", None)
                return finish(answer) if finish is not None else answer
        except (ApplicationError, ApplicationDisconnect, HandlerRefusal):
            raise
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            if limit.expired():
                self.failed(kind, handler, "timeout", None)
            else:
                self.failed(kind, handler, "exception", error)
            raise INTERNAL.fresh() from None
        finally:
            self.observe(kind, began)
            self._in_progress -= 1
            if not self._in_progress:
                self._idle.set()

    def observe(self, kind: str, since: float) -> None:
        """Count the duration of a handler that was called at `since`, by the monotonic clock."""
        seconds = time.monotonic() - since
        self._counters.handler_duration[kind].observe(seconds)
        if seconds > self._slow_seconds.get(kind, seconds):
            self._counters.slow_handlers[kind] += 1

    def failed(self, kind: str, handler: object, reason: str, error: BaseException | None) -> None:
        """Count a failure and log it, with the traceback of `error`."""
        self._counters.errors["handler"] += 1
        self._counters.handler_failures[reason] += 1
        now = time.monotonic()
        if now - self._second >= 1.0:
            self._second, self._logged = now, 0
        if self._logged >= _LOGGED_PER_SECOND:
            self._not_logged += 1
            return
        self._logged += 1
        not_logged, self._not_logged = self._not_logged, 0
        log.error(
            "handler_failed",
            kind=kind,
            handler=getattr(handler, "__qualname__", repr(handler)),
            reason=reason,
            not_logged=not_logged,
            exc_info=error,
        )

    async def flush(self) -> None:
        """Wait until no handler runs; the caller bounds the time."""
        while self._in_progress:
            self._idle.clear()
            await self._idle.wait()
