"""The generator's connections: one class per part that a connection can play.

Rules:
- A delivery is one `MARK` byte in what arrives. Counting one byte is a `memchr`; it works for
  every framing and cannot be split between two reads.
- Only a `Probe` reads the payload: it reads the eight digits behind the mark.
- Everything a connection reports goes into one `Counters`, which the run reads at its window's edges.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from benchmarks.load.protocols import Step, WireProtocol
from benchmarks.load.wire import FrameReader, server_frame, upgrade_request

MARK = b"^"
DIGITS = 8
NEVER = b"\0never sent\0"


def payload(number: int, size: int) -> bytes:
    """Build JSON data of exactly `size` bytes that carries one mark and a number."""
    head = b'{"t":"^%08d","p":"' % number
    return head + b"x" * (size - len(head) - 2) + b'"}'


@dataclass(slots=True)
class Counters:
    """Plain sums over all connections."""

    marks: int = 0
    bytes_in: int = 0
    closed: int = 0
    is_over: bool = False
    reasons: list[str] = field(default_factory=list)

    def connection_closed(self, why: str) -> None:
        if self.is_over:
            return
        self.closed += 1
        if len(self.reasons) < 3:
            self.reasons.append(why)


class Sink(asyncio.Protocol):
    """Counts and answers pings; nothing else."""

    __slots__ = ("counters", "ping", "pong", "transport")

    def __init__(self, counters: Counters, protocol: WireProtocol) -> None:
        self.counters = counters
        self.ping = server_frame(protocol.ping, protocol.opcode) if protocol.ping else NEVER
        self.pong = protocol.frame(protocol.pong)
        self.transport: asyncio.Transport | None = None

    def started(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        counters = self.counters
        counters.bytes_in += len(data)
        counters.marks += data.count(MARK)
        if data.endswith(self.ping):
            self.write(self.pong)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.counters.connection_closed(repr(exc) if exc else "closed by the server")


class Probe(Sink):
    """Reports the number of each publication and when it came."""

    __slots__ = ("_rest", "seen")

    def __init__(
        self, counters: Counters, protocol: WireProtocol, seen: Callable[[int, float], None]
    ) -> None:
        super().__init__(counters, protocol)
        self.seen = seen
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        self.received(data, time.perf_counter())

    def received(self, data: bytes, now: float) -> None:
        """Count what arrived at that time."""
        super().data_received(data)
        pieces = (self._rest + data).split(MARK)
        self._rest = MARK + pieces.pop() if len(pieces) > 1 and len(pieces[-1]) < DIGITS else b""
        for piece in pieces[1:]:
            self.seen(int(piece[:DIGITS]), now)


class Requester(Sink):
    """Calls `answered` whenever something carrying its own tag arrives."""

    __slots__ = ("answered", "tag")

    def __init__(
        self,
        counters: Counters,
        protocol: WireProtocol,
        tag: bytes,
        answered: Callable[["Requester"], None],
    ) -> None:
        super().__init__(counters, protocol)
        self.tag = tag
        self.answered = answered

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.tag in data:
            self.answered(self)


class Opening(asyncio.Protocol):
    """Upgrades, walks through the protocol's steps, then passes the transport to `part`."""

    def __init__(self, protocol: WireProtocol, host: str, channel: str, part: Sink) -> None:
        self._steps: list[Step] = list(protocol.opening(channel))
        self._request = upgrade_request(host, protocol.path) if protocol.path else b""
        self._frame = protocol.frame
        self._reader = FrameReader()
        self._part = part
        self._transport: asyncio.Transport | None = None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        if self._request:
            self._transport.write(self._request)
        else:
            self._pass_on()

    def data_received(self, data: bytes) -> None:
        try:
            was_upgraded = self._reader.is_upgraded
            messages = list(self._reader.feed(data))
        except ConnectionRefusedError as refusal:
            self._fail(refusal)
            return
        if not was_upgraded and self._reader.is_upgraded:
            self._say()
        for message in messages:
            if self._steps and self._steps[0].until in message:
                self._steps.pop(0)
                self._say()

    def _say(self) -> None:
        assert self._transport is not None
        if not self._steps:
            self._pass_on()
        elif self._steps[0].send:
            self._transport.write(self._frame(self._steps[0].send))

    def _pass_on(self) -> None:
        assert self._transport is not None
        if self.opened.done():
            return
        self._transport.set_protocol(self._part)
        self._part.started(self._transport)
        self.opened.set_result(None)

    def _fail(self, reason: Exception) -> None:
        assert self._transport is not None
        if not self.opened.done():
            self.opened.set_exception(reason)
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionResetError("closed while opening"))
