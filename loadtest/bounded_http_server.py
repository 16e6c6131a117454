"""An HTTP server whose silent clients delay nobody: a thread for each of a few connections.

Rules
- One request per connection. Its head has `HEAD_SECONDS` and `LONGEST_HEAD_BYTES`; an answer that is not
  read within `WRITE_SECONDS` is given up.
- If there is no place, the oldest connection without a whole head is closed for the new one.
- A connection never takes one of the last descriptors (a quarter, 64 at most): it is closed at once.
  socketserver polls again at once when accepting fails; here it pauses.
- What a page of another site sends is answered with 403, as the monitoring's ports do: a request for a name
  that any domain may have resolved to this address (Host), or from another page (Origin, Sec-Fetch-Site).
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import resource
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

HEAD_SECONDS: Final = 10.0
WRITE_SECONDS: Final = 5.0
LONGEST_HEAD_BYTES: Final = 65536
MOST_CONNECTIONS: Final = 32
_FEWEST_CONNECTIONS: Final = 4
_KEPT_BACK_FILES: Final = 64
_PAUSE_SECONDS: Final = 0.5
# Nobody can register a name below these: RFC 6761, RFC 6762, RFC 8375, and ICANN's reservation of 2024.
_PRIVATE_DOMAINS: Final = (".localhost", ".local", ".home.arpa", ".internal")


def _file_limits() -> tuple[int, int]:
    """How many descriptors connections may reach, and how many connections may be open."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return limit, MOST_CONNECTIONS
    usable = limit - min(_KEPT_BACK_FILES, limit // 4)
    return usable, max(_FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, usable // 2))


class BoundedHttpServer(ThreadingHTTPServer):
    """Serves with a subclass of `BoundedHandler`."""

    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BoundedHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._own_names = (address[0].lower(), socket.gethostname().lower())
        self._lock = threading.Lock()
        # When each of those whose head is not whole was accepted, the oldest first.
        self._silent: dict[socket.socket, float] = {}
        self._open: set[socket.socket] = set()
        super().__init__(address, handler)

    def is_own(self, host: str) -> bool:
        """Whether a Host is an address, or no domain of the Internet but this server's own."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        with suppress(ValueError):
            ipaddress.ip_address(name)
            return True
        is_private = "." not in name or name.endswith(_PRIVATE_DOMAINS)
        return bool(name) and (is_private or name in self._own_names)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection.

        Raises:
            OSError: there is none, or no descriptor, after a pause.
        """
        try:
            return super().get_request()
        except (BlockingIOError, ConnectionAbortedError):
            raise
        except OSError:
            time.sleep(_PAUSE_SECONDS)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is a place for a connection, if need be after closing a silent one."""
        usable, places = _file_limits()
        if usable != resource.RLIM_INFINITY and request.fileno() >= usable:
            return False
        with self._lock:
            if len(self._open) >= places and not self._displace():
                return False
            self._open.add(request)
            self._silent[request] = time.monotonic()
        return True

    def _displace(self) -> bool:
        oldest = next(iter(self._silent), None)
        if oldest is None:
            return False
        self._end(oldest)
        return True

    def _end(self, silent: socket.socket) -> None:
        """Let the thread of a connection read its end, and close it."""
        del self._silent[silent]
        with suppress(OSError):
            silent.shutdown(socket.SHUT_RDWR)

    def service_actions(self) -> None:
        """Close those that are overdue; called about twice a second."""
        super().service_actions()
        with self._lock:
            overdue = time.monotonic() - HEAD_SECONDS
            for silent in [one for one, since in self._silent.items() if since < overdue]:
                self._end(silent)

    def takes_head(self, request: socket.socket) -> bool:
        """Whether it was not closed meanwhile; from now on it is displaced for nobody."""
        with self._lock:
            return self._silent.pop(request, None) is not None

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._lock:
            self._silent.pop(request, None)
            self._open.discard(request)
            # Under the lock: the descriptor of a closed socket may be another one's.
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away or took too long is no fault of this process."""


class _BoundedHead(io.BufferedReader):
    """What a client sends, which ends after `LONGEST_HEAD_BYTES`."""

    _left = LONGEST_HEAD_BYTES

    def readline(self, size: int | None = -1, /) -> bytes:
        if not self._left:
            raise http.client.LineTooLong("head")
        most = self._left if size is None or size < 0 else min(self._left, size)
        line = super().readline(most)
        self._left -= len(line)
        return line


class BoundedHandler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: BoundedHttpServer

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(HEAD_SECONDS)
        raw: Any = self.rfile.detach()
        self.rfile = _BoundedHead(raw)

    def parse_request(self) -> bool:
        is_valid = super().parse_request()
        is_open = self.server.takes_head(self.connection)
        # Of the whole answer: `sendall` counts all that it takes.
        self.connection.settimeout(WRITE_SECONDS)
        if is_valid and is_open and self._is_foreign():
            self.send_error(
                403, explain="name this server by its address, or by a name without a dot"
            )
            return False
        return is_valid and is_open

    def _is_foreign(self) -> bool:
        """Whether a page of another site may have sent this (CSRF, DNS rebinding)."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not self.server.is_own(hosts[0]):
            return True
        own = {f"http://{hosts[0]}", f"https://{hosts[0]}"}
        site = self.headers.get("Sec-Fetch-Site", "none")
        is_own_page = own.issuperset(self.headers.get_all("Origin", []))
        return not is_own_page or site not in ("none", "same-origin")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that it has there
        """A line for each scrape tells nothing."""
