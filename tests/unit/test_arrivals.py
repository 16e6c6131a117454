"""The load generator knows when a publication was at a client's socket, also if it reads it late."""

from __future__ import annotations

import asyncio
import socket
import time

from benchmarks.load.arrivals import ArrivalProbe
from benchmarks.load.clients import Counters, payload
from benchmarks.load.protocols import PROTOCOLS
from tests.harness.waiting import until


async def test_a_publication_that_is_read_late_has_the_time_at_which_it_arrived():
    loop = asyncio.get_running_loop()
    seen: dict[int, float] = {}
    counters = Counters()
    probe = ArrivalProbe(counters, PROTOCOLS["centrifuge"], seen.__setitem__)
    numbers: list[int] = []
    sent_at: dict[int, float] = {}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport, _ = await loop.create_connection(lambda: probe, *listener.getsockname())
        probe.started(transport)
        server, _ = listener.accept()

    def send_and_be_busy() -> None:
        numbers.append(len(numbers))
        server.sendall(payload(numbers[-1], 100))
        sent_at[numbers[-1]] = time.perf_counter()
        while time.perf_counter() < sent_at[numbers[-1]] + 0.05:
            pass

    def is_early() -> bool:
        # The kernel begins to note times a moment after it was first asked to.
        if len(seen) == len(numbers):
            if numbers and seen[numbers[-1]] <= sent_at[numbers[-1]] + 0.001:
                return True
            send_and_be_busy()
        return False

    with server:
        await until(is_early, 30, "the time of the arrival")
    await until(lambda: counters.closed == 1, 30, "the probe notices that the server has closed")
    assert counters.marks == len(numbers) == len(seen)
