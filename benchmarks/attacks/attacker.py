"""`python -m benchmarks.attacks.attacker KIND --port N`: some connections that attack for a while.

A connection that the server closes is opened again at once. What the server sends is read and
thrown away. At the end, or at SIGTERM, one JSON object says what was sent and how much came back. It stops by itself.

The attackers share a core with the store and with the clients whose latency is measured. What those wait for
there says nothing about the server, so the attackers give the core away after each turn of a socket: the
lowest priority alone lets others wait until the scheduler's next tick, up to 4 ms. Bytes that are sent one by
one have a short send buffer: out of a long one the kernel sends thousands of packets by itself.
"""

import argparse
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.attacks.kinds import ATTACKS, Attack
from benchmarks.paths import LOAD_CORE

_READ_BYTES = 1 << 20
_TICK_SECONDS = 0.05
_PIECES_SEND_BUFFER_BYTES = 16_384


@dataclass(slots=True)
class Totals:
    """What all connections have done."""

    connections: int = 0
    bytes_sent: int = 0
    bytes_read: int = 0
    statuses: Counter[str] = field(default_factory=Counter)


class Attacker:
    """One connection at a time; `turn` does what the socket is ready for."""

    def __init__(
        self, attack: Attack, port: int, selector: selectors.BaseSelector, totals: Totals
    ) -> None:
        self._attack = attack
        self._address = ("127.0.0.1", port)
        self._selector = selector
        self._totals = totals
        self._open()

    def _open(self) -> None:
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._attack.piece:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECES_SEND_BUFFER_BYTES)
        self._socket.connect_ex(self._address)
        self._rest = memoryview(self._attack.opening)
        self._is_answered = False
        self._totals.connections += 1
        self._selector.register(
            self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE, data=self
        )

    def close(self) -> None:
        self._selector.unregister(self._socket)
        self._socket.close()

    def turn(self, events: int) -> None:
        try:
            if events & selectors.EVENT_READ and not self._read():
                raise ConnectionResetError
            if events & selectors.EVENT_WRITE:
                self._write()
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            self._open()

    def _read(self) -> bool:
        data = self._socket.recv(_READ_BYTES)
        self._totals.bytes_read += len(data)
        if data and not self._is_answered:
            self._is_answered = True
            self._totals.statuses[data[9:12].decode("latin-1")] += 1
        return bool(data)

    def _write(self) -> None:
        if not self._rest:
            self._rest = memoryview(self._attack.flood)
        piece = self._rest[: self._attack.piece] if self._attack.piece else self._rest
        sent = self._socket.send(piece)
        self._totals.bytes_sent += sent
        self._rest = self._rest[sent:]


def attack(kind: str, port: int, connections: int, seconds: float) -> Totals:
    """Attack until the time is up."""
    selector, totals = selectors.DefaultSelector(), Totals()
    attackers = [Attacker(ATTACKS[kind], port, selector, totals) for _ in range(connections)]
    deadline, is_over = time.monotonic() + seconds, False

    def stop(*_: object) -> None:
        nonlocal is_over
        is_over = True

    signal.signal(signal.SIGTERM, stop)
    while not is_over and time.monotonic() < deadline:
        for key, events in selector.select(_TICK_SECONDS):
            key.data.turn(events)
            os.sched_yield()
    for attacker in attackers:
        attacker.close()
    return totals


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(ATTACKS))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    os.nice(19)
    totals = attack(given.kind, given.port, given.connections, min(given.seconds, 60.0))
    print(
        json.dumps(
            {
                "connections": totals.connections,
                "bytes_sent": totals.bytes_sent,
                "bytes_read": totals.bytes_read,
                "statuses": dict(totals.statuses),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
