"""Users that do not publish: idle users, session holders, churn, callers, slow readers."""

from __future__ import annotations

import random
import socket
import time
from contextlib import suppress
from typing import Final

import gevent
from locust import task
from websocket import WebSocketException

from loadtest.centrifuge_client import (
    CentrifugeClient,
    CommandRefused,
    CommandUnanswered,
    ConnectionClosed,
)
from loadtest.users.member import Member

_SLOW_BUFFER_BYTES: Final = 4096
_SLOW_POLL_SECONDS: Final = 0.2
_LONGEST_SLOW_SECONDS: Final = 8.0
# More than a server's queue and the system's buffers hold for one client.
_SURELY_TOO_MUCH_BYTES: Final = 16 << 20


class Idle(Member):
    """Is connected and sends nothing."""

    @task
    def hold(self) -> None:
        self.rest(1.0)


class SessionHolder(Member):
    """Holds a session and resumes it now and then."""

    session = ""

    def connect_data(self) -> dict[str, object]:
        return {"session": self.session}

    def enter(self) -> None:
        found = (self.client.data or {}).get("session") or {}
        self.session = found.get("id", "")

    @task
    def hold(self) -> None:
        self.rest(random.uniform(30, 90))
        if self.session and not self.load_context.is_ending:
            self.client.close()
            self.client = self.new_client()
            self.connect()
            resumed = bool((self.client.data or {}).get("session", {}).get("resumed"))
            self.load_context.measured("session resumed" if resumed else "session lost", 0.0, None)
            self.enter()


class Comer(Member):
    """Connects and disconnects; all users together make `--rate` connections per second."""

    default_rate = 100.0
    _due = 0.0

    def on_start(self) -> None:
        self.arrive()

    @task
    def come_and_go(self) -> None:
        pace = self.pace_seconds()
        now = time.monotonic()
        self._due = self._due + pace if self._due else now + pace * random.random()
        # A user that is late catches up, but by at most one second.
        self._due = max(self._due, now - 1.0)
        self.rest(max(0.0, self._due - now))
        if self.load_context.is_ending:
            return
        client = self.new_client()
        # The client has reported errors as events.
        with suppress(
            OSError, WebSocketException, CommandRefused, CommandUnanswered, ConnectionClosed
        ):
            client.connect_once()
        client.close()


class Caller(Member):
    """Calls a procedure and waits for the answer."""

    default_rate = 20.0

    @task
    def call(self) -> None:
        self.rest(self.pace_seconds())
        if self.load_context.is_ending:
            return
        with suppress(CommandRefused, CommandUnanswered):
            self.client.rpc(self.load_context.options.method, {"t": time.time()})


class SlowReader(Member):
    """Subscribes to a busy channel and reads nothing until it is closed; then it reconnects."""

    reads = False
    receive_buffer_bytes = _SLOW_BUFFER_BYTES

    def enter(self) -> None:
        channel = self.load_context.channel(0)
        self.client.send_raw(b'{"id":2,"subscribe":{"channel":"%s"}}' % channel.encode())

    @task
    def stall(self) -> None:
        began, published = time.monotonic(), self.load_context.published_bytes
        while not self.load_context.is_ending and time.monotonic() - began < _LONGEST_SLOW_SECONDS:
            gevent.sleep(_SLOW_POLL_SECONDS)
            if _is_closed(self.client):
                self.load_context.expected("slow reader closed", time.monotonic() - began)
                break
        else:
            if self.load_context.published_bytes - published > _SURELY_TOO_MUCH_BYTES:
                self._report_open(time.monotonic() - began)
        if self.load_context.is_ending:
            self.rest(1.0)
            return
        self.client.close()
        self.client = self.new_client()
        self.connect()
        self.enter()

    def _report_open(self, seconds: float) -> None:
        if not self.load_context.is_ending:
            error = NotClosed("it reads nothing, and is not closed")
            self.load_context.measured("expected slow reader closed", seconds, error)


class NotClosed(Exception):
    """A client that does not read was not closed, so it holds memory for ever."""


def _is_closed(client: CentrifugeClient) -> bool:
    """Whether the server has closed the connection, without reading from it."""
    sock = client.socket
    if sock is None:
        return True
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
    established = 1
    return info[0] != established
