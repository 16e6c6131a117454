"""Asks the store how many sessions the whole cluster has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from cluster.config import Config

SessionStats = Callable[[], Awaitable[dict[str, float]]]


@asynccontextmanager
async def session_stats(config: Config) -> AsyncIterator[SessionStats]:
    """What is asked for the numbers: `tracked`, `created`, `resumed`, `expired`.

    The store's client is imported here, after the workers were started: it is slow to import.
    """
    from cluster.resp.router import Router
    from cluster.sessions.statistics import SessionStatistics

    router = Router(config.broker.redis_urls, timeout_seconds=config.broker.timeout)
    try:
        await router.start()
        yield SessionStatistics(router, prefix=config.broker.prefix).read
    finally:
        await router.aclose()
