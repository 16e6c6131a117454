"""The signals that stop the cluster, and those that mean nothing to it.

By default all of them end a process at once: a supervisor or a worker must have a handler for each.
"""

from __future__ import annotations

import signal
from typing import Final

# PWR is what an init sends when the power fails, XCPU what a limit of CPU time sends before KILL.
STOP_SIGNALS: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGPWR,
    signal.SIGXCPU,
)

UNUSED_SIGNALS: Final = (
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGIO,
    signal.SIGSTKFLT,
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)


def signal_name(number: int) -> str:
    """Return the name of a signal, e.g. SIGUSR2 or SIGRTMIN+3."""
    if number >= signal.SIGRTMIN:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
    return signal.Signals(number).name
