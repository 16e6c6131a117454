"""The limit of open files, and the number of connections that fit into it."""

from __future__ import annotations

import contextlib
import resource
from typing import Final

# File descriptors of a worker that are no client connections: libraries, store, metrics, sockets.
OTHER_FILES: Final = 64
ENOUGH_FILES: Final = 65536
#: What a process with CAP_SYS_RESOURCE raises a lower hard limit to, if the kernel allows it (fs.nr_open).
RAISED_FILES: Final = 262_144


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard limit, and that one where it may; returns the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < RAISED_FILES:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (RAISED_FILES, RAISED_FILES))
            return RAISED_FILES
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft
    return hard if hard != resource.RLIM_INFINITY else 2**20


def admin_places(connection_limit: int, *, file_limit: int) -> int:
    """Return the connections the admin port may hold: `admin.connection_limit`, or half the files."""
    return max(4, min(connection_limit, (file_limit - OTHER_FILES) // 2))


def connection_capacity(
    workers: int, *, file_limit: int, connection_limit: int, nginx_capacity: int | None
) -> int:
    """Return the number of client connections the cluster can hold.

    Args:
        workers: number of workers.
        file_limit: files one worker may open.
        connection_limit: `client.connection_limit` per worker; 0 is no limit.
        nginx_capacity: client connections nginx can hold; None without nginx.
    """
    per_worker = max(0, file_limit - OTHER_FILES)
    if connection_limit:
        per_worker = min(per_worker, connection_limit)
    total = workers * per_worker
    return total if nginx_capacity is None else min(total, nginx_capacity)
