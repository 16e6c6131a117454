"""Programs a environment is made of: started in a session of their own, found again, known to the undo daemon."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

from cluster.errors import BootFailed
from loadtest.drilling import undo
from loadtest.drilling.environment.load import ROOT
from loadtest.drilling.undo import UndoLog

# Below the ports that the kernel gives to clients, which may be taken at any moment.
_LOWEST_PORT: Final = 20000
_HIGHEST_PORT: Final = 32000
_LOOK_SECONDS: Final = 0.1
_TAIL_LINES: Final = 8
_given: set[int] = set()


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens on; each is given once."""
    for _ in range(1000):
        first = random.randrange(_LOWEST_PORT, _HIGHEST_PORT - count)
        wanted = range(first, first + count)
        if _given.isdisjoint(wanted) and all(_is_free(port) for port in wanted):
            _given.update(wanted)
            return first
    raise BootFailed(f"no {count} free ports in a row between {_LOWEST_PORT} and {_HIGHEST_PORT}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def this(*words: str) -> list[str]:
    """The command line of `ws-cluster …` with this interpreter."""
    return [sys.executable, "-m", "cluster", *words]


class DrillProcess:
    """One program of a environment.

    Args:
        cgroup: a control group it and its children live in; None for ours.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        undo_log: UndoLog,
        cgroup: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._undo_log = undo_log
        if cgroup is not None:
            # The shell joins before it becomes the program, so no child is ever outside.
            joined = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
            command = ["/bin/sh", "-c", joined, str(cgroup), *command]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(command),
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
                | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.mend = undo_log.note(undo.ended(self._process.pid))

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until(self, is_ready: Callable[[], bool], seconds: float) -> None:
        """Return when it is ready.

        Raises:
            BootFailed: it ended or is not within so many seconds; carries its last words.
        """
        deadline = time.monotonic() + seconds
        while not is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                how = "is not ready" if self._process.returncode is None else "ended"
                raise BootFailed(f"{self.name} {how}; it said: {self.last_words()}")
            time.sleep(_LOOK_SECONDS)

    def last_words(self) -> str:
        """The end of its log, on one line."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-_TAIL_LINES:]) or "nothing"

    def end(self) -> None:
        """End it as an operator does; killed if it stays."""
        self._undo_log.mend([self.mend])
        self._process.poll()

    def kill(self) -> None:
        """End it as kill -9 does."""
        self._process.kill()
        self._process.wait()
        self._undo_log.forget(self.mend)

    # --- its family ------------------------------------------------------------------------

    def children(self, *words: str, below: int | None = None) -> list[int]:
        """Pids of its children, or another's, whose command line holds all of these words."""
        found = []
        try:
            family = psutil.Process(below or self.pid).children()
        except psutil.NoSuchProcess:
            return []
        for process in family:
            try:
                line = " ".join(process.cmdline())
                is_gone = process.status() == psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:
                continue
            if not is_gone and all(word in line for word in words):
                found.append(process.pid)
        return sorted(found)
