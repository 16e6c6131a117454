"""The embedded Valkey as a child process.

Guarantees
- It listens on a unix socket in a directory that only this user can enter, and on no TCP port.
- Every write is handed to the kernel (append-only file) before it is acknowledged: a killed
  process loses no acknowledged write, a power cut may lose some (`appendfsync no`).
- It is ready when it answers PING, which it does after its data is loaded.
- Its memory is limited. When it is full it removes what would expire next (`volatile-ttl`): a stream
  goes long before its position. Whoever needs what was removed is told: a position without
  its stream, or a stream without its position, recovers nothing (tests/contract/test_embedded.py).
- A worker that does not read is disconnected before what it is sent fills the memory; it connects
  again and reads from the streams what it has missed.
"""

from __future__ import annotations

import asyncio
import math
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cluster.children.child import Child
from cluster.children.process import Launch
from cluster.children.worker_child import environment
from cluster.metrics.system import memory

_PROBE_INTERVAL_SECONDS: Final = 0.02
_PROBE_TIMEOUT_SECONDS: Final = 2.0
# Hard limit, soft limit and its seconds. A worker's reads in flight are half a megabyte each
# (READ_MAX_BYTES), and at most 200 (broker.read_concurrency).
_OUTPUT_LIMITS: Final = "normal 192mb 128mb 30 pubsub 64mb 32mb 30"


class ValkeySpec:
    """The embedded Valkey.

    Args:
        program: path of the server.
        data_dir: directory of its append-only files; must exist.
        socket_path: the unix socket it listens on; its directory must be private.
        lock_fd: the lock of the data directory, held while the server runs.
        max_memory: bytes of data and buffers; 0 is half of the machine's or the container's memory,
            because a rewrite of the append-only file may need the other half.
    """

    name = "valkey"
    lanes: tuple[str, ...] = ("valkey",)
    stop_signal = signal.SIGTERM
    boot_seconds = math.inf
    output_level = "info"

    def __init__(
        self, program: str, *, data_dir: Path, socket_path: Path, lock_fd: int, max_memory: int = 0
    ) -> None:
        self._program = program
        self._data_dir = data_dir
        self._socket = socket_path
        self._lock_fd = lock_fd
        self._max_memory = max_memory

    @property
    def url(self) -> str:
        """The URL for workers."""
        return f"unix://{quote(str(self._socket))}"

    def launch(self, lane: str) -> Launch:
        """Return the command that starts Valkey."""
        self._socket.unlink(missing_ok=True)
        options = {
            "--port": "0",
            "--unixsocket": str(self._socket),
            "--unixsocketperm": "700",
            "--dir": str(self._data_dir),
            "--appendonly": "yes",
            "--appendfsync": "no",
            "--save": "",
            "--daemonize": "no",
            "--loglevel": "warning",
            "--maxmemory": str(self._max_memory or memory().limit // 2),
            "--maxmemory-policy": "volatile-ttl",
            "--client-output-buffer-limit": _OUTPUT_LIMITS,
        }
        return Launch(
            argv=(self._program, *(part for pair in options.items() for part in pair)),
            env=environment(),
            death_signal=signal.SIGTERM,
            pass_fds=(self._lock_fd,),
            inherits_stdout=False,
        )

    async def watch(self, child: Child, status_fd: int | None) -> None:
        """Probe Valkey until it answers, then report ready; afterwards only its exit is watched."""
        while not await self._answers():  # noqa: ASYNC110 - Valkey sends no readiness event
            await asyncio.sleep(_PROBE_INTERVAL_SECONDS)
        child.report("ready")

    async def _answers(self) -> bool:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(_PROBE_TIMEOUT_SECONDS):
                reader, writer = await asyncio.open_unix_connection(str(self._socket))
                try:
                    writer.write(b"PING\r\n")
                    return await reader.readline() == b"+PONG\r\n"
                finally:
                    writer.close()
        return False

    def loggable(self, text: str) -> str:
        """Return the output without the warning about a missing configuration file."""
        kept = [line for line in text.splitlines() if "no config file specified" not in line]
        return "\n".join(kept)

    def ended(self, lane: str) -> None:
        """Remove the socket."""
        self._socket.unlink(missing_ok=True)
