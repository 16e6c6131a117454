"""The signals of the monitoring's long-running commands: the first that says stop asks them to end.

A hangup says stop too. The others that would end a process by default mean nothing here.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import Final

from cluster.process_signals import STOP_SIGNALS, UNUSED_SIGNALS

STOPPING: Final = (*STOP_SIGNALS, signal.SIGHUP)
#: The cluster opens its logs again with USR1; here the logs are those of `monitoring up`.
WITHOUT_MEANING: Final = (signal.SIGUSR1, *UNUSED_SIGNALS)


def stop_event() -> asyncio.Event:
    """An asyncio event that the first of the signals sets; call this in the main thread."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOPPING:
        loop.add_signal_handler(number, stop.set)
    _ignore_the_others()
    return stop


def stop_flag() -> threading.Event:
    """A threading event that the first of the signals sets; call this in the main thread."""
    stop = threading.Event()
    for number in STOPPING:
        signal.signal(number, lambda *_: stop.set())
    _ignore_the_others()
    return stop


def _ignore_the_others() -> None:
    for number in WITHOUT_MEANING:
        # Not SIG_IGN, which a program that is executed would inherit.
        signal.signal(number, lambda *_: None)
