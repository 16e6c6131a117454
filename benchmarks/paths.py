"""Where the benchmarks read and write, and which cores they use.

The server has the first core that this process may use, the load and Valkey the last one. With a
single core they are the same, and the report says so.
"""

import os
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent
REPOSITORY = BENCHMARKS.parent
PEERS = BENCHMARKS / "peers"
RESULTS = BENCHMARKS / "results"
CACHE = REPOSITORY / ".bench"

_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = _CORES[0], _CORES[-1]


def make_cache() -> Path:
    """Make the cache directory; git ignores what is in it."""
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    return CACHE


def pin_to_server_core() -> None:
    os.sched_setaffinity(0, {SERVER_CORE})
