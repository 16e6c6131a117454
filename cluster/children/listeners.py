"""The listening sockets: all of them are bound here, outlive every child, and never hang anybody.

Rules
- A held socket never refuses a connection. So a door nobody stands behind is answered here:
  503, `Retry-After`, close; and whoever asked goes on to the next.
- `Door.is_refusing` follows the children; while a worker drains the door refuses as well.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final

from cluster import log
from cluster.config import Config
from cluster.errors import ConfigError, Problem

BACKLOG: Final = 4096
_PATIENCE_SECONDS: Final = 2.0
_MOST_REFUSALS_AT_ONCE: Final = 1024
_LONGEST_HEAD: Final = 32768
_BODY: Final = b'{"error":"no worker is ready"}\n'
REFUSAL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Content-Type: application/json\r\n"
    b"Content-Length: " + str(len(_BODY)).encode() + b"\r\n"
    b"Retry-After: 1\r\n"
    b"Connection: close\r\n\r\n" + _BODY
)


def bind(host: str, port: int) -> socket.socket:
    """A bound, listening, non-blocking socket; port 0 takes a free one.

    Raises:
        OSError: if the address is not to be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def address(sock: socket.socket, *, host: str = "") -> str:
    """`host:port` of a bound socket, with brackets around IPv6."""
    bound, port = sock.getsockname()[:2]
    name = host or bound
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def reachable_host(host: str) -> str:
    """Where this machine reaches what is bound to `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


class Listeners:
    """Every socket a supervisor needs at its start: public, operator's, one per slot.

    Raises:
        ConfigError: with a problem for every port that is not to be had.
    """

    def __init__(self, config: Config, workers: int) -> None:
        self._host = "127.0.0.1" if config.server.host == "localhost" else config.server.host
        # Past nginx nobody is limited and nothing is logged: its workers are for this machine alone.
        self._slot_host = "127.0.0.1" if config.server.nginx else self._host
        self._base = config.server.worker_port_base
        self._problems: list[Problem] = []
        opened = self._open("server.port", config.server.port) if config.server.nginx else None
        self.public = opened
        admin = self._open("server.admin_port", config.server.admin_port)
        slots = [self._open_slot(n) for n in range(workers)]
        self.slots: list[socket.socket] = [sock for sock in slots if sock]
        if self._problems or admin is None:
            for sock in (self.public, admin, *self.slots):
                if sock:
                    sock.close()
            raise ConfigError(self._problems)
        self.admin: socket.socket = admin

    def port_of(self, slot: int) -> int:
        """The port of a slot; 0 takes a free one."""
        return self._base + slot if self._base else 0

    def add_slot(self) -> socket.socket:
        """Open the next slot's socket.

        Raises:
            ConfigError: if its port is not to be had.
        """
        self._problems = []
        sock = self._open_slot(len(self.slots))
        if sock is None:
            raise ConfigError(self._problems)
        self.slots.append(sock)
        return sock

    def remove_slot(self) -> None:
        """Close the last slot's socket."""
        self.slots.pop().close()

    def _open_slot(self, slot: int) -> socket.socket | None:
        return self._open("server.worker_port_base", self.port_of(slot), self._slot_host)

    def _open(self, key: str, port: int, host: str = "") -> socket.socket | None:
        host = host or self._host
        try:
            return bind(host, port)
        except (OSError, OverflowError) as error:
            self._problems.append(_why_not(key, host, port, error))
            return None

    def close(self) -> None:
        """Close all of them."""
        for sock in (self.public, self.admin, *self.slots):
            if sock:
                sock.close()


def _why_not(key: str, host: str, port: int, error: OSError | OverflowError) -> Problem:
    where = f"port {port} of {host}"
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        allowed = f"{where} is in use: stop what listens there or give another port"
    elif number == errno.EACCES:
        allowed = f"{where} needs privileges: give a port above 1023"
    elif number == errno.EADDRNOTAVAIL:
        return Problem("server.host", host, "give an address of this machine")
    else:
        allowed = f"{where} cannot be opened ({error}): give another port"
    return Problem(key, str(port), allowed)


class Refuser:
    """Answers at a socket for as long as nobody else does."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._copy: socket.socket | None = None
        self._loop = asyncio.get_running_loop()
        self._log = log.get_logger(door=address(sock))
        self._open: set[_Refusal] = set()

    @property
    def is_refusing(self) -> bool:
        """Whether connections are answered here now."""
        return self._copy is not None

    def set_refusing(self, refusing: bool) -> None:
        """Begin or cease to answer; who is being answered is answered to the end."""
        if refusing and self._copy is None:
            self._copy = self._sock.dup()
            self._loop.add_reader(self._copy, self._accept)
        elif not refusing and self._copy is not None:
            self._loop.remove_reader(self._copy)
            self._copy.close()
            self._copy = None

    def close(self) -> None:
        """Cease to answer, and drop who is being answered."""
        self.set_refusing(False)
        for refusal in list(self._open):
            refusal.drop()

    def _accept(self) -> None:
        for _ in range(BACKLOG):
            if self._copy is None:
                return
            try:
                connection, _ = self._copy.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._log.error("refusal_failed", error=str(error))
                # Out of descriptors the socket stays readable: look again later.
                self._loop.remove_reader(self._copy)
                self._loop.call_later(1.0, self._resume)
                return
            self._refuse(connection)

    def _resume(self) -> None:
        if self._copy is not None:
            self._loop.add_reader(self._copy, self._accept)

    def _refuse(self, connection: socket.socket) -> None:
        if len(self._open) >= _MOST_REFUSALS_AT_ONCE:
            connection.close()
            return
        connection.setblocking(False)
        refusal = _Refusal(connection, self._loop, self._open.discard)
        self._open.add(refusal)


class _Refusal:
    """One connection: read the request's head, answer 503, close.

    The answer waits for the head (or for patience to end): closing a socket with unread bytes
    in it sends a reset that may overtake the answer.
    """

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        closed: Callable[[_Refusal], None],
    ) -> None:
        self._sock = sock
        self._loop = loop
        self._closed = closed
        self._head = b""
        self._timer = loop.call_later(_PATIENCE_SECONDS, self.drop)
        loop.add_reader(sock, self._read)

    def _read(self) -> None:
        try:
            chunk = self._sock.recv(_LONGEST_HEAD)
            self._head += chunk
            if chunk and b"\r\n\r\n" not in self._head and len(self._head) < _LONGEST_HEAD:
                return
            if chunk:
                self._sock.send(REFUSAL)
                self._sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return
        except OSError:
            self._head = b""
        self.drop()

    def drop(self) -> None:
        """Close the connection."""
        self._timer.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        self._closed(self)
