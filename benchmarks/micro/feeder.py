"""Publishes numbered messages to one channel as a process of its own: `feeder PORT COUNT BATCH`.

A batch leaves in one write and the next one follows when the server has taken it, so that BATCH
says how many messages a subscriber's read may bring at once.
"""

import socket
import sys

CHANNEL = b"micro"


def packed(body: bytes) -> bytes:
    return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        len(CHANNEL), CHANNEL, len(body), body,
    )  # fmt: skip


def main() -> None:
    port, count, batch = (int(argument) for argument in sys.argv[1:4])
    one = packed(b"x" * 160)
    with socket.create_connection(("127.0.0.1", port)) as store:
        store.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(0, count, batch):
            store.sendall(one * batch)
            answers = 0
            while answers < batch:
                answers += store.recv(65_536).count(b"\n")


if __name__ == "__main__":
    main()
