"""A process that holds memory: `python -m loadtest.drilling.faults.memory_hog START_BYTES BYTES_PER_SECOND MOST_BYTES`.

It touches what it holds, so that it counts, grows at a pace, and stays at most so large until it is
ended. It prints a line when it first holds START_BYTES.
"""

from __future__ import annotations

import sys
import time
from typing import Final

_PIECE: Final = 1 << 20
_BEAT_SECONDS: Final = 0.5


def main(words: list[str]) -> None:
    """Hold memory until ended."""
    start, pace, most = (float(word) for word in words)
    held: list[bytes] = []
    began = 0.0
    while True:
        since = time.monotonic() - began if began else 0.0
        wanted = min(most, start + pace * since)
        while len(held) * _PIECE < wanted:
            held.append(b"\x01" * _PIECE)
        if not began:
            began = time.monotonic()
            print("memory_hog is held", flush=True)  # noqa: T201 - whoever started it waits for this
        time.sleep(_BEAT_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1:])
