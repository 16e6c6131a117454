"""The unix sockets over which the embedded nginx reaches the workers, one per slot.

A connection over TCP needs a local port, and to one address there are about 28,000. A unix socket
needs none, and a byte costs less. Each slot keeps its port for everybody else.

Rules
- They are bound after privileges were dropped, in a directory of this run, and outlive every worker.
- What makes them impossible is logged once; nginx then uses the ports of the slots.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from cluster.children.listeners import BACKLOG
from cluster.log import get_logger

_HINT: Final = (
    "nginx reaches the workers over TCP: about 28,000 connections to each (ip_local_port_range)"
)


class LocalSockets:
    """The unix sockets of the slots, as far as they can be opened.

    Args:
        directory: makes and returns their directory; its `OSError` says why there is none.
        group: the group that may connect, besides the owner; None for no other.
    """

    def __init__(self, directory: Callable[[], Path], group: int | None) -> None:
        self._group = group
        self._sockets: dict[int, socket.socket] = {}
        self._directory: Path | None = None
        try:
            self._directory = directory()
        except OSError as error:
            self._give_up(error)

    def open(self, slot: int) -> socket.socket | None:
        """Open the socket of a slot; None if there can be none."""
        if self._directory is None:
            return None
        try:
            self._sockets[slot] = bind_local(self._directory / f"w{slot}", self._group)
        except OSError as error:
            self._give_up(error)
            return None
        return self._sockets[slot]

    def close(self, slot: int) -> None:
        """Close and remove the socket of a slot, if it has one."""
        sock = self._sockets.pop(slot, None)
        if sock is not None:
            with suppress(OSError):
                Path(sock.getsockname()).unlink()
            sock.close()

    def close_all(self) -> None:
        """Close and remove all of them."""
        for slot in list(self._sockets):
            self.close(slot)

    def _give_up(self, error: OSError) -> None:
        self._directory = None
        get_logger().warning("worker_sockets_not_opened", reason=str(error), hint=_HINT)


def bind_local(path: Path, group: int | None = None) -> socket.socket:
    """Return a listening, non-blocking unix socket; one that is left at its path is replaced.

    Args:
        group: the group that may connect, besides the owner; None for no other.

    Raises:
        OSError: if it cannot be bound, as with a path of more than 107 bytes.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        sock.bind(str(path))
        # To connect is to write (unix(7)). Nobody can before `listen`.
        if group is None:
            path.chmod(0o600)
        else:
            os.chown(path, -1, group)
            path.chmod(0o660)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
