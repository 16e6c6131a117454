"""The floor for machines without a C compiler: one raw send() per delivery from Python.

The same program as floor.c with the same arguments; the interpreter adds a few tenths of a
microsecond per delivery, so this floor lies a little higher. Reports say which one was measured.
"""

import socket
import struct
import sys
import time


def make_frame(size: int) -> bytes:
    return (struct.pack(">BBH", 0x81, 126, size - 4) + b"^00000001").ljust(size, b"x")


def main() -> None:
    port, count, size, rate = (int(argument) for argument in sys.argv[1:5])
    frame = make_frame(size)
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    peers = [listener.accept()[0] for _ in range(count)]
    for peer in peers:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sends = [peer.send for peer in peers]
    following = time.monotonic()
    while True:
        for send in sends:
            send(frame)
        if rate:
            following += 1 / rate
            time.sleep(max(0.0, following - time.monotonic()))


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(0)
