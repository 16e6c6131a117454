"""A process that holds memory: `python -m loadtest.drilling.faults.memory_hog START_BYTES BYTES_PER_SECOND MOST_BYTES`.

It writes to the memory so that it counts as used, grows at a constant rate up to MOST_BYTES, and runs
until it is ended. It prints a line when it first holds START_BYTES.
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
            print("the memory is allocated", flush=True)  # noqa: T201 - memory_fill waits for this line
        time.sleep(_BEAT_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1:])
