"""The sockets of the SDKs for Dart and Swift, as their sources open them: handshakes, frames, closes.

Dart's is that of `dart:io`, which offers deflate and sends a length with its GET; Swift's is a copy of Starscream 3
in the SDK, or `URLSessionWebSocketTask` if the application wants it. The first two send no Origin of their own.
What the last adds to a request, and the lengths and user agents, are no part of a source that was read: assumed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import struct
from dataclasses import dataclass

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True)
class Kind:
    """What tells one SDK from the other on the wire.

    Attributes:
        handshake: header lines, but for `Host` and the key.
        writes_defaults: whether a field that was set to its default is written.
        counts_on: whether the ids of commands go on over connections.
        goodbye: what its close frame says.
    """

    name: str
    handshake: tuple[str, ...]
    writes_defaults: bool
    counts_on: bool
    goodbye: bytes


DART = Kind(
    "dart",
    (
        "user-agent: Dart/3.8 (dart:io)",
        "connection: Upgrade",
        "cache-control: no-cache",
        "accept-encoding: gzip",
        "content-length: 0",
        "sec-websocket-version: 13",
        "sec-websocket-protocol: centrifuge-protobuf",
        "sec-websocket-extensions: permessage-deflate; client_max_window_bits",
        "upgrade: websocket",
    ),
    writes_defaults=True,
    counts_on=False,
    goodbye=b"",
)
SWIFT = Kind(
    "swift",
    (
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits; server_max_window_bits=15",
        "Sec-WebSocket-Protocol: centrifuge-protobuf",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
    ),
    writes_defaults=False,
    counts_on=True,
    goodbye=struct.pack("!H", 1000),
)
KINDS = {kind.name: kind for kind in (DART, SWIFT)}

NATIVE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Extensions: permessage-deflate",
    "Accept: */*",
    "Accept-Language: en-GB,en;q=0.9",
    "Accept-Encoding: gzip, deflate",
    "User-Agent: Demo/1 CFNetwork/1410.0.3 Darwin/22.6.0",
)
# Versions of the Swift SDK exchange the name of this header with its value: they need the format in the address.
EXCHANGED = (*NATIVE, "centrifuge-protobuf: Sec-WebSocket-Protocol")
PATH = "/connection/websocket"
HANDSHAKES = {
    "dart": (DART.handshake, PATH, "centrifuge-protobuf"),
    "swift": (SWIFT.handshake, PATH, "centrifuge-protobuf"),
    "swift, native": (
        (*NATIVE, "Sec-WebSocket-Protocol: centrifuge-protobuf"),
        PATH,
        "centrifuge-protobuf",
    ),
    "swift, exchanged": (EXCHANGED, f"{PATH}?format=protobuf", None),
}


async def shake_hands(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    lines: tuple[str, ...],
    path: str = PATH,
) -> dict[str, str]:
    """Upgrade, check the answer as the strictest of them does, and return its headers."""
    host, port = writer.get_extra_info("peername")[:2]
    key = base64.b64encode(os.urandom(16)).decode()
    head = [f"GET {path} HTTP/1.1", *lines, f"Sec-WebSocket-Key: {key}", f"Host: {host}:{port}"]
    writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
    answer = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    assert answer[0].split(" ")[1] == "101", answer
    pairs = [line.partition(":") for line in answer[1:] if line]
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    assert headers["upgrade"].lower() == "websocket"
    assert headers["connection"].lower() == "upgrade"
    accept = base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()
    assert headers["sec-websocket-accept"] == accept
    # Both read frames with a reserved bit only after an extension was agreed on.
    assert "sec-websocket-extensions" not in headers
    return headers


async def frame_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next frame of the server, which neither masks it nor cuts messages into several."""
    first, size = await reader.readexactly(2)
    assert first & 0xF0 == 0x80, f"first byte {first:#x}"
    if size == 126:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await reader.readexactly(8))
    return first & 0x0F, await reader.readexactly(size)
