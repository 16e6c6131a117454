"""SIGTERM and SIGINT as an event: the first of them asks a long-running command to end."""

from __future__ import annotations

import asyncio
import signal
import threading

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def stop_event() -> asyncio.Event:
    """An asyncio event that the first of the signals sets."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    return stop


def stop_flag() -> threading.Event:
    """A threading event that the first of the signals sets; call this in the main thread."""
    stop = threading.Event()
    for number in _SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    return stop
