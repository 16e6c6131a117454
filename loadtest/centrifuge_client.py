"""A client of the Centrifuge protocol (JSON, version 2) for load tests, on gevent.

Rules
- It is independent: it uses no code of the server, so that a fault of the server's codec is found.
- One greenlet reads; each call waits for the reply with its id. Frames hold several JSON
  documents, one a line, both ways.
- A broken connection is reopened after a pause that doubles and is jittered, and its
  subscriptions are recovered from their positions. What was not answered is `CommandUnanswered`: it may
  have happened or not.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import gevent
import orjson
from gevent.event import AsyncResult
from websocket import (
    ABNF,
    WebSocket,
    WebSocketConnectionClosedException,
    WebSocketException,
    create_connection,
)

Json = dict[str, Any]
# name, seconds, error or None
Measured = Callable[[str, float, Exception | None], None]
# channel, data, offset
Delivered = Callable[[str, Any, int], None]

_REPLY_SECONDS: Final = 10.0
_CONNECT_SECONDS: Final = 15.0
# The SDKs, too, wait this much longer for a ping than the server announces.
_PING_GRACE_SECONDS: Final = 10.0
_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 5.0
# Close codes after which a client must not come back (protocol page §3).
_TERMINAL: Final = range(3500, 4000)
_TERMINAL_APPLICATION: Final = range(4500, 5000)
_UNSUBSCRIBED_AGAIN: Final = 2500


class CommandRefused(Exception):
    """The server answered with an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code


class CommandUnanswered(Exception):
    """No reply came; the command may have been executed or not."""


class NotSent(CommandUnanswered):
    """There was no connection, so the command was certainly not executed."""


class ConnectionClosed(Exception):
    """The server closed the connection for good."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code


@dataclass(slots=True)
class ClientSubscription:
    """One channel of one client.

    Attributes:
        subscribed: called with the reply's offset (None in a channel without positions), whether it
            recovered and whether that was asked.
    """

    channel: str
    delivered: Delivered
    subscribed: Callable[[int | None, bool, bool], None]
    is_recoverable: bool
    offset: int = 0
    epoch: str = ""
    is_confirmed: bool = False


class CentrifugeClient:
    """One client.

    Args:
        url: ws://…/connection/websocket.
        measured: called with the duration of each `connect`, `subscribe`, `publish`, `rpc` and `recover`.
    """

    def __init__(
        self,
        url: str,
        *,
        measured: Measured,
        token: str = "",
        data: Json | None = None,
        reads: bool = True,
        receive_buffer_bytes: int = 0,
    ) -> None:
        self.url = url
        self.is_connected = False
        self.data: Any = None
        self.closed_with: ConnectionClosed | None = None
        self._measured = measured
        self._token = token
        self._connect_data = data
        self._reads = reads
        self._receive_buffer_bytes = receive_buffer_bytes
        self._socket: WebSocket | None = None
        self._reader: gevent.Greenlet | None = None
        self._waiting: dict[int, tuple[AsyncResult, Callable[[Json], None] | None]] = {}
        self._subscriptions: dict[str, ClientSubscription] = {}
        self._last_id = 0
        self._is_wanted = False

    # --- life ------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect, and stay connected until `close`.

        Raises:
            OSError, WebSocketException: if there is no answer, or one with another status than 101.
            Refused, Unanswered, Closed: the connect command was not accepted.
        """
        self._is_wanted = True
        self._open()
        if self._reads:
            self._reader = gevent.spawn(self._live)

    def connect_once(self) -> None:
        """Connect without a reader; the caller reads with `read_frames`. Raises as `connect`."""
        self._open()

    def read_frames(self, count: int) -> None:
        """Read a number of frames, and discard them.

        Raises:
            Closed: the server closed the connection instead.
            OSError, WebSocketException: it broke.
        """
        for _ in range(count):
            self._frame()

    def read_replies(self, count: int) -> int:
        """Read until so many replies have come; returns how many did. Raises as `read_frames`."""
        seen = 0
        while seen < count:
            seen += sum("id" in document for document in self._frame())
        return seen

    @property
    def socket(self) -> socket.socket | None:
        """The socket below; None while there is none."""
        return self._socket.sock if self._socket is not None else None

    def _open(self) -> None:
        """One connection, up to the reply to connect."""
        began = time.perf_counter()
        try:
            self._socket = self._handshake()
            command: Json = {}
            if self._token:
                command["token"] = self._token
            if self._connect_data is not None:
                command["data"] = self._connect_data
            self._last_id += 1
            self._send_frame(orjson.dumps({"id": self._last_id, "connect": command}))
            result = self._first_reply(self._last_id)
        except Exception as error:
            self._measured("connect", time.perf_counter() - began, error)
            self._drop_socket()
            raise
        self.data = result.get("data")
        ping = result.get("ping", 0)
        self._socket.settimeout(ping + _PING_GRACE_SECONDS if ping else None)
        self.is_connected = True
        self._measured("connect", time.perf_counter() - began, None)

    def _handshake(self) -> WebSocket:
        options: list[tuple[int, int, int]] = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        if self._receive_buffer_bytes:
            options.append((socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer_bytes))
        return create_connection(
            self.url,
            timeout=_CONNECT_SECONDS,
            skip_utf8_validation=True,
            enable_multithread=True,
            sockopt=options,
            suppress_origin=True,
        )

    def _first_reply(self, wanted: int) -> Json:
        while True:
            for document in self._frame():
                if document.get("id") == wanted:
                    return _result(document, "connect")
                self._take(document)

    def close(self) -> None:
        """Disconnect, and do not reconnect."""
        self._is_wanted = False
        self._drop_socket()
        if self._reader is not None and self._reader is not gevent.getcurrent():
            self._reader.kill(block=False)

    def drop(self) -> None:
        """Drop the connection as a network fault does; it is reopened."""
        if self._socket is not None and self._socket.sock is not None:
            with suppress(OSError):
                self._socket.sock.shutdown(socket.SHUT_RDWR)

    def _drop_socket(self) -> None:
        self.is_connected = False
        sock, self._socket = self._socket, None
        if sock is not None:
            with suppress(OSError, WebSocketException):
                sock.shutdown()
        for one in self._subscriptions.values():
            one.is_confirmed = False
        for waiting, _ in self._waiting.values():
            waiting.set_exception(CommandUnanswered("the connection ended"))
        self._waiting.clear()

    # --- reading ---------------------------------------------------------------------------

    def _live(self) -> None:
        """Read, and reopen a broken connection, until `close`."""
        pause = _FIRST_PAUSE_SECONDS
        while self._is_wanted:
            try:
                if self._socket is None:
                    self._open()
                    pause = _FIRST_PAUSE_SECONDS
                    gevent.spawn(self._subscribe_again)
                self._read()
            except ConnectionClosed as error:
                self.closed_with = error
                self._drop_socket()
                if error.code in _TERMINAL or error.code in _TERMINAL_APPLICATION:
                    self._is_wanted = False
                    return
            except (OSError, WebSocketException, CommandRefused, CommandUnanswered):
                self._drop_socket()
            except (ValueError, AttributeError, TypeError) as error:
                # The server sent something that is not the protocol: a load test must report that.
                self._measured("frame", 0.0, error)
                self._drop_socket()
            if self._is_wanted:
                gevent.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _read(self) -> None:
        while True:
            for document in self._frame():
                self._take(document)

    def _frame(self) -> list[Json]:
        assert self._socket is not None
        opcode, data = self._socket.recv_data()
        if opcode == ABNF.OPCODE_CLOSE:
            code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1005
            raise ConnectionClosed(code, data[2:].decode("utf-8", "replace"))
        return [orjson.loads(line) for line in data.split(b"\n") if line]

    def _take(self, document: Json) -> None:
        if not document:
            self._send_frame(b"{}")
        elif "push" in document:
            self._take_push(document["push"])
        elif (waits := self._waiting.pop(document.get("id", 0), None)) is not None:
            waiting, then = waits
            # Here and not in the greenlet that waits: the next line may be a publication.
            if then is not None and "error" not in document:
                then(document)
            waiting.set(document)

    def _take_push(self, push: Json) -> None:
        channel = push.get("channel", "")
        one = self._subscriptions.get(channel)
        if one is None:
            return
        if "pub" in push:
            self._take_publication(one, push["pub"])
        elif "unsubscribe" in push:
            one.is_confirmed = False
            if push["unsubscribe"].get("code", 0) >= _UNSUBSCRIBED_AGAIN:
                gevent.spawn(self._subscribe_again)
            else:
                del self._subscriptions[channel]

    def _take_publication(self, one: ClientSubscription, publication: Json) -> None:
        offset = publication.get("offset", 0)
        if offset:
            one.offset = offset
        one.delivered(one.channel, publication.get("data"), offset)

    # --- commands --------------------------------------------------------------------------

    def _send_frame(self, payload: bytes) -> None:
        if self._socket is None:
            raise NotSent("not connected")
        try:
            self._socket.send(payload)
        except (OSError, WebSocketConnectionClosedException) as error:
            raise CommandUnanswered(str(error)) from None

    def ask(
        self,
        method: str,
        params: Mapping[str, Any],
        then: Callable[[Json], None] | None = None,
    ) -> Json:
        """Send one command and wait for its result.

        Args:
            then: called with the reply before anything that came after it is taken.

        Raises:
            Refused: an error came.
            Unanswered: nothing came.
        """
        self._last_id += 1
        number = self._last_id
        waiting = AsyncResult()
        self._waiting[number] = waiting, then
        try:
            self._send_frame(orjson.dumps({"id": number, method: params}))
            document = waiting.get(timeout=_REPLY_SECONDS)
        except gevent.Timeout:
            raise CommandUnanswered(f"no reply to {method} within {_REPLY_SECONDS:g} s") from None
        finally:
            self._waiting.pop(number, None)
        return _result(document, method)

    def _timed(
        self,
        name: str,
        method: str,
        params: Mapping[str, Any],
        then: Callable[[Json], None] | None = None,
    ) -> Json:
        began = time.perf_counter()
        try:
            result = self.ask(method, params, then)
        except NotSent:
            raise
        except (CommandRefused, CommandUnanswered) as error:
            self._measured(name, time.perf_counter() - began, error)
            raise
        self._measured(name, time.perf_counter() - began, None)
        return result

    def publish(self, channel: str, data: Any) -> None:
        """Publish; raises as `ask` does."""
        self._timed("publish", "publish", {"channel": channel, "data": data})

    def rpc(self, method: str, data: Any) -> Any:
        """Call a procedure; raises as `ask` does."""
        return self._timed("rpc", "rpc", {"method": method, "data": data}).get("data")

    def history(self, channel: str, limit: int) -> Json:
        """The last publications of a channel; raises as `ask` does."""
        params = {"channel": channel, "limit": limit, "reverse": True}
        return self._timed("history", "history", params)

    def send_raw(self, payload: bytes) -> None:
        """Send a frame unchanged."""
        self._send_frame(payload)

    # --- subscriptions ---------------------------------------------------------------------

    def subscribe(self, one: ClientSubscription) -> None:
        """Subscribe, and stay subscribed across reconnects; raises as `ask` does."""
        self._subscriptions[one.channel] = one
        try:
            self._subscribe(one)
        except CommandRefused:
            del self._subscriptions[one.channel]
            raise

    def unsubscribe(self, channel: str) -> None:
        """Unsubscribe from a channel; raises as `ask` does."""
        self._subscriptions.pop(channel, None)
        self._timed("unsubscribe", "unsubscribe", {"channel": channel})

    def _subscribe_again(self) -> None:
        for one in list(self._subscriptions.values()):
            while self._is_wanted and self.is_connected and not one.is_confirmed:
                try:
                    self._subscribe(one)
                except CommandRefused:
                    # Temporary, for example while the store does not answer.
                    gevent.sleep(random.uniform(0.2, 1.0))
                except CommandUnanswered:
                    return

    def _subscribe(self, one: ClientSubscription) -> None:
        params: Json = {"channel": one.channel}
        if one.is_recoverable:
            params |= {"recoverable": True, "positioned": True}
        is_recovering = bool(one.epoch)
        if is_recovering:
            params |= {"recover": True, "offset": one.offset, "epoch": one.epoch}
        one.is_confirmed = False

        def then(document: Json) -> None:
            self._subscribed(one, _result(document, "subscribe"), is_recovering=is_recovering)

        name = "recover" if is_recovering else "subscribe"
        self._timed(name, "subscribe", params, then)

    def _subscribed(self, one: ClientSubscription, result: Json, *, is_recovering: bool) -> None:
        one.is_confirmed = True
        recovered = bool(result.get("recovered"))
        is_positioned = bool(result.get("positioned") or result.get("recoverable"))
        offset = result.get("offset", 0)
        one.subscribed(offset if is_positioned else None, recovered, is_recovering)
        if not (is_recovering and recovered):
            one.offset = offset
        if is_positioned:
            one.epoch = result.get("epoch", "")
        for publication in result.get("publications", ()):
            self._take_publication(one, publication)


def _result(document: Json, method: str) -> Json:
    if (error := document.get("error")) is not None:
        raise CommandRefused(error.get("code", 0), error.get("message", ""))
    result: Json = document.get(method) or {}
    return result
