"""The listening sockets of the supervisor, and 503 responses for sockets without a process.

`local_sockets` has those that the embedded nginx uses besides the ports of the workers.

Rules
- All sockets are bound here and outlive every child.
- The kernel accepts connections on a listening socket even if no process serves it. So for as
  long as a socket has no serving process, `UnavailableResponder` answers its connections: 503,
  `Retry-After`, close. nginx then tries the next worker. The same holds while a worker drains.
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
from cluster.kept_back_files import has_few_files_left

#: Connections the kernel queues until they are accepted, for every listening socket.
BACKLOG: Final = 4096
#: What the kernel keeps of a connection until it is read (socket(7): doubled for its own bookkeeping). Without
#: a limit it lets this grow to megabytes, and of packets of one byte each a single read takes milliseconds.
RECEIVE_BUFFER_BYTES: Final = 65536
_ACCEPTED_PER_TURN: Final = 256
_REQUEST_SECONDS: Final = 2.0
_MAX_OPEN_RESPONSES: Final = 1024
_LONGEST_HEAD: Final = 32768
_BODY: Final = b'{"error":"no worker is ready"}\n'
UNAVAILABLE_RESPONSE: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Content-Type: application/json\r\n"
    b"Content-Length: " + str(len(_BODY)).encode() + b"\r\n"
    b"Retry-After: 1\r\n"
    b"Connection: close\r\n\r\n" + _BODY
)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening, non-blocking socket; port 0 chooses a free port.

    Raises:
        OSError: if the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Before listen: connections inherit it, and it bounds the window that they offer.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def address(sock: socket.socket, *, host: str = "") -> str:
    """Return `host:port` of a bound socket, with brackets around an IPv6 address, or `unix:/path`."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    bound, port = sock.getsockname()[:2]
    name = host or bound
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def reachable_host(host: str) -> str:
    """Return the address at which this machine reaches a socket bound to `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def reachable_address(sock: socket.socket) -> str:
    """Return the `host:port` at which this machine reaches a bound socket."""
    return address(sock, host=reachable_host(sock.getsockname()[0]))


class Listeners:
    """The sockets of a supervisor: the public port, the admin port, and one per worker slot.

    Raises:
        ConfigError: with a problem for every port that cannot be bound.
    """

    def __init__(self, config: Config, workers: int) -> None:
        self._host = _numeric(config.server.host)
        # Limits and the access log are in nginx: workers behind it listen on loopback only.
        self._slot_host = "127.0.0.1" if config.server.nginx else self._host
        self._base = config.server.worker_port_base
        self._problems: list[Problem] = []
        opened = self._open("server.port", config.server.port) if config.server.nginx else None
        self.public = opened
        admin_host = _numeric(config.server.admin_host)
        admin = self._open("server.admin_port", config.server.admin_port, admin_host)
        slots = [self._open_slot(n) for n in range(workers)]
        self.slots: list[socket.socket] = [sock for sock in slots if sock]
        if self._problems or admin is None:
            for sock in (self.public, admin, *self.slots):
                if sock:
                    sock.close()
            raise ConfigError(self._problems)
        self.admin: socket.socket = admin

    def port_of(self, slot: int) -> int:
        """Return the port of a slot; 0 stands for a free port."""
        return self._base + slot if self._base else 0

    def add_slot(self) -> socket.socket:
        """Open the next slot's socket.

        Raises:
            ConfigError: if its port cannot be bound.
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
            self._problems.append(_bind_problem(key, host, port, error))
            return None

    def close(self) -> None:
        """Close all sockets."""
        for sock in (self.public, self.admin, *self.slots):
            if sock:
                sock.close()


def _numeric(host: str) -> str:
    return "127.0.0.1" if host == "localhost" else host


def _bind_problem(key: str, host: str, port: int, error: OSError | OverflowError) -> Problem:
    name = f"port {port} of {host}"
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        advice = f"{name} is in use: stop what listens there or give another port"
    elif number == errno.EACCES:
        advice = f"{name} needs privileges: give a port above 1023"
    elif number == errno.EADDRNOTAVAIL:
        option = "server.admin_host" if key == "server.admin_port" else "server.host"
        return Problem(option, host, "give an address of this machine")
    else:
        advice = f"{name} cannot be opened ({error}): give another port"
    return Problem(key, str(port), advice)


class UnavailableResponder:
    """Answers the connections of listening sockets with 503 while it is active."""

    def __init__(self, *sockets: socket.socket) -> None:
        self._sockets = sockets
        self._is_active = False
        self._loop = asyncio.get_running_loop()
        self._log = log.get_logger()
        self._open: set[_UnavailableResponse] = set()

    @property
    def is_active(self) -> bool:
        """Whether connections are answered now."""
        return self._is_active

    def set_active(self, active: bool) -> None:
        """Start or stop accepting; connections already accepted still get their response."""
        if active == self._is_active:
            return
        # The sockets themselves, no duplicates: this must work without a free descriptor.
        self._is_active = active
        for sock in self._sockets:
            if active:
                self._loop.add_reader(sock, self._accept, sock)
            else:
                self._loop.remove_reader(sock)

    def close(self) -> None:
        """Stop accepting and close the open connections."""
        self.set_active(False)
        for response in list(self._open):
            response.close()

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(_ACCEPTED_PER_TURN):
            if not self._is_active:
                return
            try:
                connection, _ = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._log.error("accept_failed", error=str(error), listener=address(sock))
                # Without free descriptors the socket stays readable: try again later.
                self._loop.remove_reader(sock)
                self._loop.call_later(1.0, self._resume, sock)
                return
            self._respond(connection)

    def _resume(self, sock: socket.socket) -> None:
        if self._is_active:
            self._loop.add_reader(sock, self._accept, sock)

    def _respond(self, connection: socket.socket) -> None:
        if len(self._open) >= _MAX_OPEN_RESPONSES or has_few_files_left(connection):
            connection.close()
            return
        connection.setblocking(False)
        response = _UnavailableResponse(connection, self._loop, self._open.discard)
        self._open.add(response)


class _UnavailableResponse:
    """One connection: reads the request's head, answers 503, closes.

    The response is sent after the head has been read, because closing a socket with unread bytes
    sends a reset that may arrive before the response. A connection that sends no complete head
    in time is closed without a response.
    """

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        closed: Callable[[_UnavailableResponse], None],
    ) -> None:
        self._sock = sock
        self._loop = loop
        self._closed = closed
        self._head = b""
        self._timer = loop.call_later(_REQUEST_SECONDS, self.close)
        loop.add_reader(sock, self._read)

    def _read(self) -> None:
        try:
            chunk = self._sock.recv(_LONGEST_HEAD)
            self._head += chunk
            if chunk and b"\r\n\r\n" not in self._head and len(self._head) < _LONGEST_HEAD:
                return
            if chunk:
                self._sock.send(UNAVAILABLE_RESPONSE)
                self._sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return
        except OSError:
            self._head = b""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._timer.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        self._closed(self)
