"""Descriptors that no accepted connection takes."""

from __future__ import annotations

import resource
import socket
from typing import Final

#: They are for logs, scrapes, starts of processes, the store and what the program itself connects to.
KEPT_BACK_FILES: Final = 64
_FEWEST_PLACES: Final = 4


def has_few_files_left(sock: socket.socket) -> bool:
    """Whether an accepted connection took one of the last `KEPT_BACK_FILES` descriptors.

    The kernel gives the lowest free number, so a number says how many descriptors are open at least.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return False
    return sock.fileno() >= limit - _kept_back(limit)


def places(connection_limit: int) -> int:
    """How many connections may be open: `connection_limit`, or half of the files that are not kept back."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return connection_limit
    return max(_FEWEST_PLACES, min(connection_limit, (limit - _kept_back(limit)) // 2))


def _kept_back(limit: int) -> int:
    return min(KEPT_BACK_FILES, limit // 4)
