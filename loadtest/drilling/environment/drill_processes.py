"""The programs of an environment, each known to the undo daemon.

Rule: they have no death signal. Drills run in threads, a death signal belongs to the thread that
forks, and a program may have to outlive its drill; the undo daemon ends what a killed drill leaves.
"""

from __future__ import annotations

import random
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

from cluster.children.subprocesses import Subprocess
from cluster.errors import BootFailed
from loadtest.drilling import undo
from loadtest.drilling.undo import UndoLog

ROOT: Final = Path(__file__).resolve().parents[3]
# Below the ports that the kernel gives to clients, which may be in use at any moment.
_LOWEST_PORT: Final = 20000
_HIGHEST_PORT: Final = 32000
_POLL_SECONDS: Final = 0.1
_TAIL_LINES: Final = 8
_given: set[int] = set()


def free_ports(count: int) -> int:
    """The first of `count` consecutive ports that are free; each port is given out once."""
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


def ws_cluster(*words: str) -> list[str]:
    """The command line of `ws-cluster …` with this interpreter."""
    return [sys.executable, "-m", "cluster", *words]


class DrillProcess(Subprocess):
    """One program of an environment, started when it is made.

    Args:
        folder: where its log is written.
        cgroup: a control group that it and its children are in; None for this process's.

    Attributes:
        undo_number: the entry in the undo log that ends it.
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
        if cgroup is not None:
            # The shell joins before it becomes the program, so no child is ever outside.
            joined = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
            command = ["/bin/sh", "-c", joined, str(cgroup), *command]
        variables = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | dict(environment or {})
        super().__init__(
            name,
            command,
            log=folder / f"{name}.log",
            environment=variables,
            cwd=ROOT,
            death_signal=None,
        )
        self._undo_log = undo_log
        self.start()
        self.undo_number = undo_log.note(undo.ended(self.pid))

    def wait_until(self, is_ready: Callable[[], bool], seconds: float) -> None:
        """Return when it is ready.

        Raises:
            BootFailed: if it ended, or is not ready in time; with the last lines of its log.
        """
        deadline = time.monotonic() + seconds
        while not is_ready():
            if not self.is_running or time.monotonic() > deadline:
                how = "is not ready" if self.exit_code is None else "ended"
                raise BootFailed(f"{self.name} {how}; it said: {self.last_lines(_TAIL_LINES)}")
            time.sleep(_POLL_SECONDS)

    def end(self) -> None:
        """Send it SIGTERM, and SIGKILL if it does not end."""
        self._undo_log.undo([self.undo_number])
        _ = self.exit_code

    def kill(self) -> None:
        """End it as kill -9 does."""
        super().kill()
        self.forget()

    def forget(self) -> None:
        """It has ended: the undo daemon need not end it."""
        self._undo_log.forget(self.undo_number)

    # --- its children ----------------------------------------------------------------------

    def children(self, *words: str, below: int | None = None) -> list[int]:
        """Pids of its children, or another process's, whose command line has all of these words."""
        found = []
        try:
            children = psutil.Process(below or self.pid).children()
        except psutil.NoSuchProcess:
            return []
        for process in children:
            try:
                line = " ".join(process.cmdline())
                is_zombie = process.status() == psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:
                continue
            if not is_zombie and all(word in line for word in words):
                found.append(process.pid)
        return sorted(found)
