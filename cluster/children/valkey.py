"""The embedded Valkey as a child.

Guarantees
- It is reached through a unix socket in a directory only this user can enter; it has no port.
- Every write is in its append-only file before it is acknowledged to the kernel's care: a killed
  process loses nothing acknowledged; a power cut may (`appendfsync no`).
- It is ready when it answers PING: its data is loaded by then.
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

_ASK_AGAIN_SECONDS: Final = 0.02
_ANSWER_SECONDS: Final = 2.0


class ValkeySpec:
    """The one embedded Valkey.

    Args:
        program: path of the server.
        data_dir: where its append-only files are; exists.
        socket_path: where it listens; its directory is private.
        lock_fd: the lock of the data directory, held for as long as the server lives.
    """

    name = "valkey"
    lanes: tuple[str, ...] = ("valkey",)
    stop_signal = signal.SIGTERM
    boot_seconds = math.inf
    output_level = "info"

    def __init__(self, program: str, *, data_dir: Path, socket_path: Path, lock_fd: int) -> None:
        self._program = program
        self._data_dir = data_dir
        self._socket = socket_path
        self._lock_fd = lock_fd

    @property
    def url(self) -> str:
        """Where workers find it."""
        return f"unix://{quote(str(self._socket))}"

    def launch(self, lane: str) -> Launch:
        """What to start."""
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
        }
        return Launch(
            argv=(self._program, *(part for pair in options.items() for part in pair)),
            env=environment(),
            death_signal=signal.SIGTERM,
            pass_fds=(self._lock_fd,),
            inherits_stdout=False,
        )

    async def watch(self, child: Child, status_fd: int | None) -> None:
        """Ask until it answers; afterwards its exit is all there is to know."""
        while not await self._answers():  # noqa: ASYNC110 - Valkey tells nobody
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
        child.report("ready")

    async def _answers(self) -> bool:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(_ANSWER_SECONDS):
                reader, writer = await asyncio.open_unix_connection(str(self._socket))
                try:
                    writer.write(b"PING\r\n")
                    return await reader.readline() == b"+PONG\r\n"
                finally:
                    writer.close()
        return False

    def said(self, text: str) -> str:
        """Its log, without the notice about lacking a configuration file."""
        kept = [line for line in text.splitlines() if "no config file specified" not in line]
        return "\n".join(kept)

    def ended(self, lane: str) -> None:
        """Take away the socket nobody listens on any more."""
        self._socket.unlink(missing_ok=True)
