"""The little of RFC 6455 that a load generator needs: an upgrade, text and binary frames.

Rules:
- Client frames carry the masking key 0, so that masking costs nothing. RFC 6455 §5.3 asks for an
  unpredictable key to protect proxies from scripts in browsers; no proxy and no browser is here.
- Frames are only taken apart while a connection is set up. Afterwards bytes are counted.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

FIN_TEXT = 0x81
FIN_BINARY = 0x82
HEADER_BY_LENGTH = {126: (4, ">H"), 127: (10, ">Q")}


def text_frame(payload: bytes) -> bytes:
    return client_frame(FIN_TEXT, payload)


def client_frame(first: int, payload: bytes) -> bytes:
    """Build a frame; `first` is FIN_TEXT or FIN_BINARY."""
    length = len(payload)
    if length < 126:
        return b"%c%c\0\0\0\0%b" % (first, 0x80 | length, payload)
    if length < 65_536:
        return struct.pack(">BBHI", first, 0x80 | 126, length, 0) + payload
    return struct.pack(">BBQI", first, 0x80 | 127, length, 0) + payload


def server_frame(payload: bytes, first: int = FIN_TEXT) -> bytes:
    """Build the same message as a server sends it: unmasked. For the floor and for pings."""
    length = len(payload)
    if length < 126:
        return b"%c%c%b" % (first, length, payload)
    return struct.pack(">BBH", first, 126, length) + payload


def upgrade_request(host: str, path: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


@dataclass(slots=True)
class FrameReader:
    """Takes the HTTP answer, then text messages, out of whatever pieces arrive."""

    is_upgraded: bool = False
    _rest: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the payload of every complete frame.

        Raises:
            ConnectionRefusedError: when the answer to the upgrade is anything but 101.
        """
        self._rest += data
        if not self.is_upgraded:
            end = self._rest.find(b"\r\n\r\n")
            if end < 0:
                return
            status = bytes(self._rest[: self._rest.find(b"\r\n")])
            if b" 101 " not in status:
                raise ConnectionRefusedError(f"the upgrade was answered with {status.decode()!r}")
            del self._rest[: end + 4]
            self.is_upgraded = True
        yield from self._frames()

    def _frames(self) -> Iterator[bytes]:
        while len(self._rest) >= 2:
            length = self._rest[1] & 0x7F
            start = 2
            if length in HEADER_BY_LENGTH:
                start, form = HEADER_BY_LENGTH[length]
                if len(self._rest) < start:
                    return
                (length,) = struct.unpack_from(form, self._rest, 2)
            if len(self._rest) < start + length:
                return
            payload = bytes(self._rest[start : start + length])
            del self._rest[: start + length]
            yield payload
