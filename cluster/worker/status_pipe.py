"""What a worker reports to the supervisor: one JSON line per change, and the last one as heartbeat."""

from __future__ import annotations

import contextlib
import os

import orjson


class StatusPipe:
    """The write end of the pipe that the supervisor reads.

    Args:
        fd: its file descriptor, inherited from the supervisor.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._line = b""
        os.set_blocking(fd, False)

    def report(self, state: str, reason: str = "", **more: str) -> None:
        """Report a state; `beat` repeats it until the next change."""
        line = orjson.dumps({"state": state, "reason": reason, **more}) + b"\n"
        if line != self._line:
            self._line = line
            self.beat()

    def beat(self) -> None:
        """Repeat the last report."""
        # A full pipe means that the supervisor does not read; it discounts its own pauses.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._fd, self._line)
