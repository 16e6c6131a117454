"""Waiting for a state of another process, with a bound and a name for what did not happen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

_STEP = 0.05


async def until(is_true: Callable[[], bool], within: float, what: str) -> float:
    """Wait until a condition of this process holds; returns the seconds it took.

    Raises:
        AssertionError: not within `within` seconds; says `what`.
    """
    started = time.monotonic()
    while not is_true():
        if time.monotonic() - started > within:
            raise AssertionError(f"not within {within} s: {what}")
        await asyncio.sleep(_STEP)
    return time.monotonic() - started


async def until_async(is_true: Callable[[], Awaitable[bool]], within: float, what: str) -> float:
    """Like `until`, for a condition that is a coroutine."""
    started = time.monotonic()
    while not await is_true():
        if time.monotonic() - started > within:
            raise AssertionError(f"not within {within} s: {what}")
        await asyncio.sleep(_STEP)
    return time.monotonic() - started
