"""One held connection: connected with a session, subscribed, and back again after it was closed.

It does what an SDK does and no more: answers pings, remembers the offset of the last publication and the
id of its session, and recovers. A publication that is missing or comes twice is counted.
"""

import asyncio
import re
from dataclasses import dataclass, field
from typing import Protocol, cast

import orjson

from benchmarks.load.wire import FIN_TEXT, HEADER_BY_LENGTH, client_frame, text_frame

_PONG = text_frame(b"{}")
_CLOSE = 0x88
_CLOSED = client_frame(_CLOSE, b"")
_OFFSET = re.compile(rb'"offset":(\d+)')
_CONNECT, _SUBSCRIBE = 1, 2


@dataclass(slots=True)
class Totals:
    """Sums over all connections of a process."""

    connects: int = 0
    closed: dict[str, int] = field(default_factory=dict)
    recovered: int = 0
    unrecovered: int = 0
    resumed_sessions: int = 0
    lost: int = 0
    doubled: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    def count_error(self, text: str) -> None:
        self.errors[text] = self.errors.get(text, 0) + 1


class Owner(Protocol):
    """What a connection reports to."""

    totals: Totals
    request: bytes
    channel: str

    def ready(self, held: "Held") -> None:
        """The connection is subscribed, again or for the first time."""

    def delivered(self, offset: int) -> None:
        """The connection has a publication that it did not have."""

    def lost(self, held: "Held") -> None:
        """The connection has ended."""


class Held(asyncio.Protocol):
    """The client's end; the object outlives its sockets."""

    __slots__ = (
        "epoch",
        "is_ready",
        "is_upgraded",
        "offset",
        "owner",
        "rest",
        "session",
        "transport",
    )

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.transport: asyncio.Transport | None = None
        self.session = self.epoch = ""
        self.offset = -1
        self.rest = b""
        self.is_upgraded = self.is_ready = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self.rest, self.is_upgraded, self.is_ready = b"", False, False
        self.transport.write(self.owner.request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport, self.rest = None, b""
        self.owner.lost(self)

    def data_received(self, data: bytes) -> None:
        data = self.rest + data if self.rest else data
        if not self.is_upgraded:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self.rest = head
                return
            if b" 101 " not in head[:16]:
                self._fail(head[:12].decode("latin-1"))
                return
            self.is_upgraded = True
            self._open()
        self.rest = self._frames(data)

    def _frames(self, data: bytes) -> bytes:
        """Handle the complete frames, and return what is left."""
        at = 0
        while len(data) - at >= 2:
            length, start = data[at + 1] & 0x7F, 2
            if length in HEADER_BY_LENGTH:
                start = HEADER_BY_LENGTH[length][0]
                if len(data) - at < start:
                    break
                length = int.from_bytes(data[at + 2 : at + start], "big")
            end = at + start + length
            if len(data) < end:
                break
            self._frame(data[at], data[at + start : end])
            at = end
        return data[at:]

    def _frame(self, first: int, payload: bytes) -> None:
        if first == FIN_TEXT:
            for message in payload.split(b"\n"):
                self._message(message)
        elif first == _CLOSE:
            code = str(int.from_bytes(payload[:2], "big"))
            closed = self.owner.totals.closed
            closed[code] = closed.get(code, 0) + 1
            self._write(_CLOSED)
            if self.transport is not None:
                self.transport.close()

    def _message(self, message: bytes) -> None:
        if message == b"{}":
            self._write(_PONG)
        elif message.startswith(b'{"push"'):
            offset = _OFFSET.search(message)
            if offset is not None and b'"pub"' in message:
                self._publication(int(offset[1]))
        else:
            self._reply(orjson.loads(message))

    def _publication(self, offset: int) -> None:
        totals = self.owner.totals
        if offset <= self.offset:
            totals.doubled += 1
            return
        totals.lost += offset - self.offset - 1
        self.offset = offset
        self.owner.delivered(offset)

    def _reply(self, reply: dict[str, object]) -> None:
        if reply.get("error"):
            self._fail(f"error {reply['error']}")
        elif reply.get("id") == _CONNECT:
            session = reply["connect"]["data"]["session"]  # type: ignore[index]
            self.owner.totals.resumed_sessions += session["id"] == self.session
            self.session = session["id"]
        elif reply.get("id") == _SUBSCRIBE:
            self._subscribed(reply["subscribe"])  # type: ignore[arg-type]

    def _subscribed(self, result: dict[str, object]) -> None:
        totals = self.owner.totals
        offset = cast("int", result.get("offset", 0))
        if self.offset < 0:
            self.offset = offset
        elif result.get("recovered"):
            totals.recovered += 1
            for publication in cast("list[dict[str, int]]", result.get("publications", [])):
                self._publication(publication["offset"])
        else:
            totals.unrecovered += 1
            totals.lost += offset - self.offset
            self.offset = offset
        self.epoch = cast("str", result.get("epoch", ""))
        totals.connects += 1
        self.is_ready = True
        self.owner.ready(self)

    def _open(self) -> None:
        """Send both commands in one frame, as the SDK for JavaScript does it."""
        connect: dict[str, object] = {"name": "hold", "data": {"session": self.session}}
        subscribe: dict[str, object] = {"channel": self.owner.channel}
        if self.offset >= 0:
            subscribe |= {"recover": True, "offset": self.offset, "epoch": self.epoch}
        commands = (
            {"id": _CONNECT, "connect": connect},
            {"id": _SUBSCRIBE, "subscribe": subscribe},
        )
        self._write(text_frame(b"\n".join(map(orjson.dumps, commands))))

    def _write(self, frame: bytes) -> None:
        if self.transport is not None:
            self.transport.write(frame)

    def _fail(self, why: str) -> None:
        self.owner.totals.count_error(why)
        if self.transport is not None:
            self.transport.abort()
