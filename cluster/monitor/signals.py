"""How a part that runs for long is told to end: SIGTERM or SIGINT, once is enough."""

from __future__ import annotations

import asyncio
import signal
import threading

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def stop_event() -> asyncio.Event:
    """An event of the running loop that is set by the first of the signals."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    return stop


def stop_flag() -> threading.Event:
    """The same for a program without a loop; to be called in the main thread."""
    stop = threading.Event()
    for number in _SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    return stop
