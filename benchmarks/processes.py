"""Starts a process pinned to a core and makes sure that it ends.

Rules:
- Each process has its own session and dies with us (parent-death signal), even on kill -9.
- Output goes to a file, which is quoted when the process ends before it should.
- Ports come from the kernel; nothing assumes that 8000 is free.
"""

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.paths import SERVER_CORE
from benchmarks.proc import children
from benchmarks.raise_limits import raise_open_files

HOST = "127.0.0.1"
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class ServerFailed(Exception):
    """A server did not start, or ended early; the text quotes its last words."""


def _prepare(core: int | None) -> Callable[[], None]:
    def in_child() -> None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if core is not None:
            os.sched_setaffinity(0, {core})

    return in_child


class Process:
    """One running program of the benchmark."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        core: int | None = SERVER_CORE,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        raise_open_files()
        self.name = Path(command[0]).name
        self._log = log
        with log.open("wb") as output:
            # preexec_fn is safe here: this program has no other threads.
            self._popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=_prepare(core),
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def wait_until(self, is_there: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
        """Wait until the condition holds.

        Raises:
            ServerFailed: when the process ended, or the time is up.
        """
        deadline = time.monotonic() + seconds
        while not is_there():
            if self._popen.poll() is not None:
                code = self._popen.returncode
                raise ServerFailed(f"{self.name} ended with {code}: {self.last_words()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name}: no {what} in {seconds} s: {self.last_words()}")
            time.sleep(0.02)

    def last_words(self) -> str:
        return " / ".join(self._log.read_text(errors="replace").strip().splitlines()[-3:])

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def stop(self, seconds: float = 5.0) -> None:
        """Ask it to end, insist, and clear what is left of its session."""
        family = [self.pid, *_descendants(self.pid)]
        self._popen.terminate()
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        for pid in family[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    found = children(pid)
    return found + [later for child in found for later in _descendants(child)]


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def free_ports(count: int = 1) -> int:
    """Return the first of `count` neighbouring ports that are free."""
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            first = int(probe.getsockname()[1])
        # Below the ephemeral range, so that a client's port cannot take one before the server.
        first = 10_000 + first % 20_000
        if not any(_is_taken(port) for port in range(first, first + count)):
            return first


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False
