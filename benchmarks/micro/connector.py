"""Opens WebSocket connections as a process of its own: `connector PORT COUNT IN_FLIGHT`.

Each connection sends a handshake, waits for the response's head, and closes.
"""

import asyncio
import sys

import uvloop

PATH = "/connection/websocket"
REQUEST = (
    f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: benchmark\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()


async def connect(port: int, count: int) -> None:
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            raise SystemExit(f"refused: {head.decode()}")
        writer.transport.abort()


async def main() -> None:
    port, count, in_flight = (int(argument) for argument in sys.argv[1:4])
    await asyncio.gather(*(connect(port, count // in_flight) for _ in range(in_flight)))


if __name__ == "__main__":
    uvloop.run(main())
