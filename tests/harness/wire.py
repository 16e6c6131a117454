"""The client end of one WebSocket over a raw asyncio transport, cheap enough for thousands.

Written from RFC 6455 alone, so that it can also send what is forbidden: any opcode, any length, half a handshake.
Frames are masked with the zero key, which is legal and costs nothing; servers must not care.
"""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from collections.abc import Callable

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_HANDSHAKE_LIMIT = 65536


class HandshakeRefused(Exception):
    """The server answered the upgrade with something other than 101."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        super().__init__(f"upgrade answered {status}")
        self.status = status
        self.headers = headers


class HandshakeLost(Exception):
    """The connection ended before any answer to the upgrade."""


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """Encode one masked client frame (RFC 6455 section 5.2)."""
    first = (0x80 if fin else 0) | opcode
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + b"\0\0\0\0" + payload


def upgrade_request(host: str, path: str, headers: dict[str, str] | None = None) -> bytes:
    """Encode the opening handshake (RFC 6455 section 4.1)."""
    fields = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        **(headers or {}),
    }
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Wire(asyncio.Protocol):
    """One WebSocket.

    `on_message(opcode, payload)` is called for each text or binary message, `on_end(code, reason)` once
    after an upgrade, with code None when the transport ended without a close frame.
    """

    def __init__(
        self,
        on_message: Callable[[int, bytes], None],
        on_end: Callable[[int | None, str], None],
    ) -> None:
        self.on_message = on_message
        self.on_end = on_end
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        self.close_code: int | None = None
        self.close_reason = ""
        self.bytes_received = 0
        self.transport: asyncio.Transport | None = None
        self._upgraded = False
        self._rest = b""
        self._parts: list[bytes] = []
        self._parts_opcode = TEXT

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.bytes_received += len(data)
        buffer = self._rest + data if self._rest else data
        if not self._upgraded:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                self._rest = buffer
                return
            self._answered(buffer[:end])
            buffer = buffer[end + 4 :]
            if not self._upgraded:
                return
        self._rest = self._frames(buffer)

    def _answered(self, head: bytes) -> None:
        status_line, *lines = head.decode("latin-1").split("\r\n")
        status = int(status_line.split(" ")[1])
        if status == 101:
            self._upgraded = True
            if not self.opened.done():
                self.opened.set_result(None)
            return
        fields = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        if not self.opened.done():
            self.opened.set_exception(HandshakeRefused(status, headers))
        self.abort()

    def _frames(self, buffer: bytes) -> bytes:
        at, size = 0, len(buffer)
        while size - at >= 2:
            length = buffer[at + 1] & 0x7F
            start = at + 2
            if length == 126:
                start = at + 4
                if size < start:
                    break
                length = int.from_bytes(buffer[at + 2 : start], "big")
            elif length == 127:
                start = at + 10
                if size < start:
                    break
                length = int.from_bytes(buffer[at + 2 : start], "big")
            if size < start + length:
                break
            self._frame(buffer[at], buffer[start : start + length])
            at = start + length
        return buffer[at:]

    def _frame(self, first: int, payload: bytes) -> None:
        opcode, fin = first & 0x0F, first & 0x80
        if opcode <= BINARY:
            if fin and opcode:
                self.on_message(opcode, payload)
                return
            if opcode:
                self._parts_opcode = opcode
            self._parts.append(payload)
            if fin:
                whole, self._parts = b"".join(self._parts), []
                self.on_message(self._parts_opcode, whole)
        elif opcode == CLOSE:
            self._closed_by_peer(payload)
        elif opcode == PING:
            self.send(frame(PONG, payload))

    def _closed_by_peer(self, payload: bytes) -> None:
        if len(payload) >= 2:
            self.close_code = int.from_bytes(payload[:2], "big")
            self.close_reason = payload[2:].decode("utf-8", "replace")
        else:
            self.close_code = 1005
        self.send(frame(CLOSE, payload[:2]))
        if self.transport is not None:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(HandshakeLost(str(exc or "end of stream")))
        # Read it, so that asyncio does not report an exception that was never retrieved.
        if not self.opened.cancelled():
            self.opened.exception()
        self.ended.set()
        if self._upgraded:
            self.on_end(self.close_code, self.close_reason)

    def send(self, data: bytes) -> None:
        """Write raw bytes; they are dropped if the transport is closed."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def send_text(self, payload: bytes) -> None:
        """Send one text message in one frame."""
        self.send(frame(TEXT, payload))

    def close(self, code: int = 1000) -> None:
        """Send a close frame and close at once, without waiting for the server's."""
        self.send(frame(CLOSE, struct.pack("!H", code)))
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Abort the transport without a close frame."""
        if self.transport is not None:
            self.transport.abort()

    def stop_reading(self) -> None:
        """Stop reading: the receive window fills up."""
        assert self.transport is not None
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()


def ignore_message(opcode: int, payload: bytes) -> None:
    """Ignore a message."""


def ignore_end(code: int | None, reason: str) -> None:
    """Ignore the end."""


async def open_wire(
    port: int,
    *,
    host: str = "127.0.0.1",
    path: str = "/connection/websocket",
    headers: dict[str, str] | None = None,
    on_message: Callable[[int, bytes], None] = ignore_message,
    on_end: Callable[[int | None, str], None] = ignore_end,
    timeout: float = 5.0,
) -> Wire:
    """Connect and upgrade.

    Args:
        timeout: seconds for TCP and the handshake together.

    Raises:
        HandshakeRefused: an HTTP answer other than 101.
        HandshakeLost: the connection ended before an answer.
        OSError: nothing listens on the port.
        TimeoutError: no answer in time; the transport is aborted.
    """
    loop = asyncio.get_running_loop()
    wire: Wire | None = None
    try:
        async with asyncio.timeout(timeout):
            _, wire = await loop.create_connection(lambda: Wire(on_message, on_end), host, port)
            wire.send(upgrade_request(f"{host}:{port}", path, headers))
            await wire.opened
    except BaseException:
        if wire is not None:
            wire.on_end = ignore_end
            wire.abort()
        raise
    return wire
