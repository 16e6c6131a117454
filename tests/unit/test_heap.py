"""When a worker gives the memory of ended connections back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cluster.worker.heap import LEAST_ENDED, HeapTrimmer, trim_function

# Holes between what lives on: glibc gives none of them back by itself.
HOLES = """
import os
from cluster.worker.heap import HeapTrimmer, trim_function

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

blocks = [bytes(20_000) for _ in range(4_000)]
trimmer = HeapTrimmer(accepted=lambda: 4_000, still_open=lambda: 500, trim=trim_function())
del blocks[::2]
before = resident()
seconds = trimmer.trim_if_due()
print(before, resident(), seconds)
"""


class Counted:
    """Connections by number, and how often the heap was trimmed."""

    def __init__(self) -> None:
        self.accepted = self.still_open = self.trims = 0
        self.trimmer = HeapTrimmer(
            accepted=lambda: self.accepted, still_open=lambda: self.still_open, trim=self.trim
        )

    def trim(self) -> None:
        self.trims += 1


@pytest.mark.skipif(trim_function() is None, reason="this C library has no malloc_trim")
def test_memory_between_what_lives_on_is_given_back():
    said = subprocess.run(
        [sys.executable, "-c", HOLES], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    before, after, seconds = (float(word) for word in said.splitlines()[-1].split())
    assert seconds > 0
    # 40 of 80 MB are free, less what shares a page with a neighbour.
    assert before - after > 25_000_000


def test_connections_that_stay_open_cause_no_trim():
    connections = Counted()
    connections.accepted = connections.still_open = 100 * LEAST_ENDED
    assert connections.trimmer.trim_if_due() == 0.0
    assert connections.trims == 0


def test_the_heap_is_trimmed_once_for_many_connections_that_have_ended():
    connections = Counted()
    connections.accepted = LEAST_ENDED - 1
    connections.trimmer.trim_if_due()
    assert connections.trims == 0
    connections.accepted += 1
    connections.trimmer.trim_if_due()
    connections.trimmer.trim_if_due()
    assert connections.trims == 1


def test_with_many_open_connections_more_must_have_ended():
    connections = Counted()
    connections.still_open = 80 * LEAST_ENDED
    connections.accepted = connections.still_open + 10 * LEAST_ENDED - 1
    connections.trimmer.trim_if_due()
    assert connections.trims == 0
    connections.accepted += 1
    connections.trimmer.trim_if_due()
    assert connections.trims == 1


def test_without_a_function_of_the_c_library_nothing_happens():
    trimmer = HeapTrimmer(accepted=lambda: 10 * LEAST_ENDED, still_open=lambda: 0, trim=None)
    assert trimmer.trim_if_due() == 0.0


async def test_after_a_long_trim_the_next_is_far_away(monkeypatch: pytest.MonkeyPatch):
    pauses: list[float] = []

    class Stopped(Exception):
        pass

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise Stopped

    trimmer = HeapTrimmer(accepted=lambda: 0, still_open=lambda: 0, trim=None)
    took = iter([0.05, 0.0])
    monkeypatch.setattr(trimmer, "trim_if_due", lambda: next(took))
    monkeypatch.setattr("cluster.worker.heap.asyncio.sleep", sleep)
    with pytest.raises(Stopped):
        await trimmer.run()
    assert pauses == [1.0, 5.0, 1.0]
