"""Gives the memory of ended connections back to the system.

Thousands of connections that end together leave holes between what lives on. glibc gives back only what
is free at the end of its heap, so that after a storm of reconnections or of refused handshakes a worker
would keep its highest size. malloc_trim(3) gives back whole free pages anywhere; its time grows with the
number of holes (1 ms for 12,000, 50 ms for 125,000), so it is rare and its share of the time is bounded.
"""

from __future__ import annotations

import asyncio
import ctypes
import time
from collections.abc import Callable
from typing import Final

from cluster.log import get_logger

log = get_logger()

#: How many connections must have ended since the last time, at least and as a share of the open ones.
LEAST_ENDED: Final = 16
LEAST_ENDED_SHARE: Final = 1 / 8

_CHECK_SECONDS = 1.0
_MOST_TIME_SHARE = 0.01


def trim_function() -> Callable[[], object] | None:
    """glibc's malloc_trim, with no memory kept at the end of the heap; None where the C library has none."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    trim.argtypes = [ctypes.c_size_t]
    return lambda: trim(0)


class HeapTrimmer:
    """Trims the heap of this process after many connections have ended.

    Args:
        accepted: the number of connections accepted since the start.
        still_open: the number of those that are open.
        trim: gives free memory back; None if nothing can.
    """

    def __init__(
        self,
        accepted: Callable[[], int],
        still_open: Callable[[], int],
        trim: Callable[[], object] | None,
    ) -> None:
        self._accepted = accepted
        self._still_open = still_open
        self._trim = trim
        self._ended_before = 0

    async def run(self) -> None:
        """Look once a second, until cancelled."""
        pause = _CHECK_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = max(_CHECK_SECONDS, self.trim_if_due() / _MOST_TIME_SHARE)

    def trim_if_due(self) -> float:
        """Trim if enough connections have ended; returns the seconds that it took."""
        still_open = self._still_open()
        ended = self._accepted() - still_open
        least = max(LEAST_ENDED, still_open * LEAST_ENDED_SHARE)
        if self._trim is None or ended - self._ended_before < least:
            return 0.0
        self._ended_before = ended
        began = time.perf_counter()
        self._trim()
        seconds = time.perf_counter() - began
        log.debug("heap_trimmed", seconds=round(seconds, 6))
        return seconds
