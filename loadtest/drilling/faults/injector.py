"""What one drill does on its environment: it breaks, it adds load, it waits; and everything is mended.

Rules
- Whatever is broken through an injector is written down with its mend before it happens.
- `mend` undoes all of it, the last broken first, and says what could not be.
- Every wait ends at once when the drill is told to end, by raising `Interrupted`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from loadtest.drilling import undo
from loadtest.drilling.environment.cluster import Environment, MonitoredCluster
from loadtest.drilling.environment.drill_processes import DrillProcess
from loadtest.drilling.environment.load import Load, LoadFailed, RunningLoad
from loadtest.drilling.undo import UndoAction

_POLL_SECONDS: Final = 0.1


class Interrupted(Exception):
    """The drill was told to end."""


class CannotProvoke(Exception):
    """What a drill wants to break is not there; the text says what."""


class FaultInjector:
    """One drill's hands.

    Args:
        stop: set when all drills are to end.
    """

    def __init__(self, parts: MonitoredCluster, name: str, stop: threading.Event) -> None:
        self.monitored_cluster = parts
        self.name = name
        self.simulated_because = ""
        self._stop = stop
        self._noted: list[int] = []
        self._afterwards: list[Callable[[], None]] = []
        self._loads: list[RunningLoad] = []
        self._is_over = threading.Event()
        self._pulses: list[threading.Thread] = []
        self._faults: list[str] = []
        self._count = 0
        self._undoing_thread = 0

    @property
    def environment(self) -> Environment:
        """The environment, if it is one of ours, whose processes may be broken.

        Raises:
            CannotProvoke: it is somebody else's.
        """
        if not isinstance(self.monitored_cluster, Environment):
            raise CannotProvoke(
                f"{self.monitored_cluster.name} is not ours: give its commands in the target file"
            )
        return self.monitored_cluster

    # --- time ------------------------------------------------------------------------------

    def seconds(self, production_seconds: float) -> float:
        """A length of time of production, on this environment."""
        return production_seconds / self.monitored_cluster.compress

    def wait(self, real_seconds: float) -> None:
        """Sleep.

        Raises:
            Interrupted: the drill was told to end.
        """
        if self._undoing_thread == threading.get_ident():
            # What mends is not interrupted.
            time.sleep(real_seconds)
            return
        deadline = time.monotonic() + real_seconds
        while not self.is_over:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._stop.wait(min(left, _POLL_SECONDS))
        raise Interrupted

    def give_up(self) -> None:
        """Let what still provokes end at its next wait."""
        self._is_over.set()

    def wait_until(self, look: Callable[[], bool], real_seconds: float, what: str) -> None:
        """Return when something is true.

        Raises:
            CannotProvoke: it is not within so many seconds.
            Interrupted: the drill was told to end.
        """
        deadline = time.monotonic() + real_seconds
        while not look():
            if time.monotonic() > deadline:
                raise CannotProvoke(f"{what}: not within {real_seconds:g} s")
            self.wait(_POLL_SECONDS)

    @property
    def is_over(self) -> bool:
        """Whether what was broken is being mended."""
        return self._is_over.is_set() or self._stop.is_set()

    # --- breaking --------------------------------------------------------------------------

    def note(self, action: UndoAction) -> int:
        """Write a mend down; break the thing only after this."""
        number = self.monitored_cluster.undo_log.note(action)
        self._noted.append(number)
        return number

    def afterwards(self, action: Callable[[], None]) -> None:
        """Do something before the noted undo_log: for what only we can mend, on an environment of ours."""
        self._afterwards.append(action)

    def stop_process(self, *pids: int) -> None:
        """Hold processes with STOP until they are mended.

        Raises:
            CannotProvoke: there is none.
        """
        if not pids:
            raise CannotProvoke("there is no process to stop")
        for pid in pids:
            self.note(undo.signalled(pid, signal.SIGCONT))
            os.kill(pid, signal.SIGSTOP)

    def change_file(self, path: Path, change: Callable[[str], str]) -> None:
        """Write a file otherwise until it is mended."""
        self.note(undo.written(path))
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")

    def pulse(self, beat: Callable[[], None], every_seconds: float) -> None:
        """Do something again and again until it is mended; an error ends it and is told then."""
        # Its own: a later provocation must not set going again a pulse that was slow to end.
        is_over = self._is_over

        def run() -> None:
            try:
                while not (is_over.is_set() or self._stop.is_set()):
                    beat()
                    is_over.wait(every_seconds)
            except Exception as error:  # noqa: BLE001 - whatever it is, the drill says it
                if not (is_over.is_set() or self._stop.is_set()):
                    self._faults.append(f"what provokes it ended: {error!r}")

        thread = threading.Thread(target=run, name=f"{self.name} pulse", daemon=True)
        self._pulses.append(thread)
        thread.start()

    def add_load(self, load: Load, *, host: str = "") -> RunningLoad:
        """Add load until it is mended; returns once its users are connected.

        Raises:
            LoadFailed: they do not connect.
        """
        running = self.start_load(load, host=host)
        self._loads.append(running)
        running.wait_until_connected(self.wait)
        return running

    def start_load(self, load: Load, *, host: str = "") -> RunningLoad:
        """Start load that the caller ends."""
        self._count += 1
        return RunningLoad(
            load,
            host=host or self.monitored_cluster.addresses.websocket,
            folder=self.monitored_cluster.folder,
            name=f"{self.name}-{self._count}",
            undo_log=self.monitored_cluster.undo_log,
        )

    def run(self, name: str, command: Sequence[str], *, cgroup: Path | None = None) -> DrillProcess:
        """Run a program until it is mended."""
        self._count += 1
        program = DrillProcess(
            f"{self.name}-{name}-{self._count}",
            command,
            folder=self.monitored_cluster.folder,
            undo_log=self.monitored_cluster.undo_log,
            cgroup=cgroup,
        )
        self._noted.append(program.undo_number)
        return program

    def simulate(self, because: str) -> None:
        """Say that the cause is not real, and why."""
        self.simulated_because = because

    # --- mending ---------------------------------------------------------------------------

    def undo(self) -> list[str]:
        """Undo everything; returns a sentence for each thing that could not be."""
        self._is_over.set()
        for thread in self._pulses:
            thread.join(30)
        faults, self._faults = self._faults, []
        self._undoing_thread = threading.get_ident()
        for action in reversed(self._afterwards):
            try:
                action()
            except Exception as error:  # noqa: BLE001 - whatever it is, the rest has to be mended, too
                faults.append(f"could not be undone: {error}")
        for load in self._loads:
            load.end()
        faults += self.monitored_cluster.undo_log.undo(self._noted)
        self._pulses, self._afterwards, self._loads, self._noted = [], [], [], []
        self._is_over = threading.Event()
        self._undoing_thread = 0
        return faults


__all__ = ["CannotProvoke", "FaultInjector", "Interrupted", "Load", "LoadFailed"]
