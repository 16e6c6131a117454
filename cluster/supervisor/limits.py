"""The limit of open files, and the number of connections that fit into it."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path
from typing import Final

from cluster.metrics.system import PROC

# File descriptors of a worker that are no client connections: libraries, store, metrics, sockets.
OTHER_FILES: Final = 64
ENOUGH_FILES: Final = 65536
#: What a process with CAP_SYS_RESOURCE raises a lower hard limit to, if the kernel allows it (fs.nr_open).
RAISED_FILES: Final = 262_144
_USUAL_MOST_FILES: Final = 2**20


def raise_file_limit(proc: Path = PROC) -> int:
    """Raise the soft limit of open files to the hard limit, and that one where it may; returns the new limit.

    Both are `fs.nr_open` at most: the kernel refuses more, whatever the capabilities.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in _wanted(hard, proc):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return wanted
    return soft


def reachable_file_limit(proc: Path = PROC) -> int:
    """Return what `raise_file_limit` would reach, and leave the limits as they are.

    A higher limit is tried, because what a capability allows depends on user namespaces too.
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    raised, _ = _wanted(before[1], proc)
    if before[1] == resource.RLIM_INFINITY or raised <= before[1]:
        return raised
    reached = raise_file_limit(proc)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    return reached


def _wanted(hard: int, proc: Path) -> tuple[int, int]:
    """What a process with the capability asks for, and what every process may have."""
    is_endless = hard == resource.RLIM_INFINITY
    most = _most_files(proc) or (_USUAL_MOST_FILES if is_endless else max(hard, RAISED_FILES))
    allowed = most if is_endless else min(hard, most)
    return max(allowed, min(RAISED_FILES, most)), allowed


def _most_files(proc: Path) -> int | None:
    """fs.nr_open; None if the kernel does not say it."""
    try:
        return int((proc / "sys/fs/nr_open").read_text())
    except (OSError, ValueError):
        return None


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
