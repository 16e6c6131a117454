"""A probe that says when a publication arrived at its socket, by the kernel's clock.

What the clients' own core does before they come to read (other clients, attackers that share the core) is
not in it. On loopback the kernel notes the time while the server writes (socket(7), SO_TIMESTAMP).
"""

import asyncio
import os
import socket
import struct
import time

from benchmarks.load.clients import Probe

# The module `socket` has no name for it; asm-generic/socket.h.
_SO_TIMESTAMPNS = 35
_TIME = struct.Struct("@ll")
_READ_BYTES = 65_536


class ArrivalProbe(Probe):
    """Reads its socket itself. Of publications that are read together all have the time of the last."""

    __slots__ = ("_socket",)

    def started(self, transport: asyncio.Transport) -> None:
        super().started(transport)
        transport.pause_reading()
        # A descriptor of its own: the loop does not lend that of a transport.
        self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def _read(self) -> None:
        try:
            data, ancillary, _, _ = self._socket.recvmsg(_READ_BYTES, socket.CMSG_SPACE(_TIME.size))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.received(data, _arrived(ancillary))
        elif self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
        super().connection_lost(exc)


def _arrived(ancillary: list[tuple[int, int, bytes]]) -> float:
    """The kernel's time as one of `time.perf_counter`; now, if the kernel did not note any."""
    # In this order: whoever runs between the two makes the time later, not earlier.
    wall = time.time()
    now = time.perf_counter()
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = _TIME.unpack(data)
            at: float = seconds + nanoseconds / 1e9
            return now - (wall - at)
    return now
