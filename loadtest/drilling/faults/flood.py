"""A client that costs a worker much CPU and itself little: `python -m loadtest.drilling.faults.flood PORT`.

It connects and sends a prebuilt frame of more than a thousand commands that need only the worker, again
and again, as fast as the worker reads them. If the server closes it, for a late pong or for reading too
slowly, it reconnects: within minutes that happens to a client that never pauses.
"""

from __future__ import annotations

import base64
import os
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from typing import Final

_COMMAND: Final = b'{"id":7,"unsubscribe":{"channel":"flood"}}'
_FRAME_BYTES: Final = 60_000
_PAUSE_SECONDS: Final = 0.01
_KEY: Final = b"\x00\x00\x00\x00"


def frame(payload: bytes) -> bytes:
    """A text frame from a client (RFC 6455 §5.2); masked with zeros, which leaves it readable."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x81, 0x80 | size)
    else:
        head = struct.pack("!BBH", 0x81, 0x80 | 126, size)
    return head + _KEY + payload


# An empty object is the protocol's ping; this is the server's frame of it, and the client's answer.
_PING: Final = b"\x81\x02{}"
_PONG: Final = frame(b"{}")


def connected(port: int) -> socket.socket:
    """A connection after the handshake and the connect command.

    Raises:
        OSError: if the worker refuses it.
    """
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET /connection/websocket HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = connection.recv(4096)
    if b" 101 " not in answer:
        raise ConnectionRefusedError(f"the worker answered {answer[:60]!r}")
    connection.sendall(frame(b'{"id":1,"connect":{}}'))
    connection.recv(4096)
    return connection


def main(port: int) -> None:
    """Send until the process is killed."""
    while True:
        with suppress(OSError):
            _flood(port)
        time.sleep(_PAUSE_SECONDS)


def _flood(port: int) -> None:
    connection = connected(port)
    try:
        _send(connection)
    finally:
        connection.close()


def _send(connection: socket.socket) -> None:
    connection.settimeout(None)
    batch = frame(b"\n".join([_COMMAND] * (_FRAME_BYTES // (len(_COMMAND) + 1))))
    is_pinged = threading.Event()
    threading.Thread(target=_read, args=(connection, is_pinged), daemon=True).start()
    while True:
        connection.sendall(batch)
        if is_pinged.is_set():
            is_pinged.clear()
            connection.sendall(_PONG)


def _read(connection: socket.socket, is_pinged: threading.Event) -> None:
    """The server closes a client that does not read, does not answer pings, or sends unrequested pongs."""
    with suppress(OSError):
        while data := connection.recv(1 << 20):
            if _PING in data:
                is_pinged.set()


if __name__ == "__main__":
    main(int(sys.argv[1]))
