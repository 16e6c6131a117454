"""How many files this machine lets a process open, and how many connections fit into that."""

from __future__ import annotations

import resource
from typing import Final

# What a worker opens beside its clients' connections: libraries, store, metrics, sockets.
OTHER_FILES: Final = 64
ENOUGH_FILES: Final = 65536


def raise_file_limit() -> int:
    """Raise the limit of open files to the hard limit; returns what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft
    return hard if hard != resource.RLIM_INFINITY else 2**20


def connection_capacity(
    workers: int, *, file_limit: int, connection_limit: int, door: int | None
) -> int:
    """Connections that fit.

    Args:
        workers: how many there are.
        file_limit: files one worker may open.
        connection_limit: `client.connection_limit`; 0 is off.
        door: connections that fit through nginx; None without it.
    """
    each = max(0, file_limit - OTHER_FILES)
    if connection_limit:
        each = min(each, connection_limit)
    return workers * each if door is None else min(workers * each, door)
