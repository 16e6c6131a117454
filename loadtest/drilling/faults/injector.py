"""Injects the faults of one drill into its environment, adds load, waits, and undoes everything.

Rules
- The undo log knows how to undo each fault before the fault is injected.
- `undo` undoes all of them, the last one first, and returns what could not be undone.
- Every wait ends at once if the drill is interrupted, by raising `Interrupted`.
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
    """The drill was interrupted."""


class CannotProvoke(Exception):
    """The fault cannot be injected; the text says why."""


class FaultInjector:
    """Injects the faults of one drill, and undoes them.

    Args:
        stop: set when all drills are to end.
    """

    def __init__(self, parts: MonitoredCluster, name: str, stop: threading.Event) -> None:
        self.monitored_cluster = parts
        self.name = name
        self.simulated_because = ""
        self._stop = stop
        self._undo_numbers: list[int] = []
        self._afterwards: list[Callable[[], None]] = []
        self._loads: list[RunningLoad] = []
        self._is_over = threading.Event()
        self._pulses: list[threading.Thread] = []
        self._faults: list[str] = []
        self._count = 0
        self._undoing_thread = 0

    @property
    def environment(self) -> Environment:
        """The environment, if the drill started it and may disturb its processes.

        Raises:
            CannotProvoke: if it is a target, which the drill did not start.
        """
        if not isinstance(self.monitored_cluster, Environment):
            raise CannotProvoke(
                f"{self.monitored_cluster.name} was not started by the drill: give commands in the target file"
            )
        return self.monitored_cluster

    # --- time ------------------------------------------------------------------------------

    def seconds(self, production_seconds: float) -> float:
        """A duration of production, in this environment."""
        return production_seconds / self.monitored_cluster.compress

    def wait(self, real_seconds: float) -> None:
        """Sleep.

        Raises:
            Interrupted: if the drill was interrupted.
        """
        if self._undoing_thread == threading.get_ident():
            # An undo is not interrupted.
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
        """Let a provocation that still runs end at its next wait."""
        self._is_over.set()

    def wait_until(self, look: Callable[[], bool], real_seconds: float, what: str) -> None:
        """Return when something is true.

        Raises:
            CannotProvoke: it is not within so many seconds.
            Interrupted: if the drill was interrupted.
        """
        deadline = time.monotonic() + real_seconds
        while not look():
            if time.monotonic() > deadline:
                raise CannotProvoke(f"{what}: not within {real_seconds:g} s")
            self.wait(_POLL_SECONDS)

    @property
    def is_over(self) -> bool:
        """Whether the faults are being undone."""
        return self._is_over.is_set() or self._stop.is_set()

    # --- faults ----------------------------------------------------------------------------

    def note(self, action: UndoAction) -> int:
        """Log an undo action; inject the fault only after this."""
        number = self.monitored_cluster.undo_log.note(action)
        self._undo_numbers.append(number)
        return number

    def afterwards(self, action: Callable[[], None]) -> None:
        """Call `action` before the logged undo actions: for an undo that only this process can do."""
        self._afterwards.append(action)

    def stop_process(self, *pids: int) -> None:
        """Stop processes with SIGSTOP until the undo.

        Raises:
            CannotProvoke: if there is none.
        """
        if not pids:
            raise CannotProvoke("there is no process to stop")
        for pid in pids:
            self.note(undo.signalled(pid, signal.SIGCONT))
            os.kill(pid, signal.SIGSTOP)

    def change_file(self, path: Path, change: Callable[[str], str]) -> None:
        """Change a file until the undo."""
        self.note(undo.written(path))
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")

    def pulse(self, beat: Callable[[], None], every_seconds: float) -> None:
        """Call `beat` again and again until the undo, which reports an error that ended it."""
        # Its own event: a later provocation must not restart a pulse that was slow to end.
        is_over = self._is_over

        def run() -> None:
            try:
                while not (is_over.is_set() or self._stop.is_set()):
                    beat()
                    is_over.wait(every_seconds)
            except Exception as error:  # noqa: BLE001 - whatever it is, the drill says it
                if not (is_over.is_set() or self._stop.is_set()):
                    self._faults.append(f"the provocation ended: {error!r}")

        thread = threading.Thread(target=run, name=f"{self.name} pulse", daemon=True)
        self._pulses.append(thread)
        thread.start()

    def add_load(self, load: Load, *, host: str = "") -> RunningLoad:
        """Add load until the undo; returns once its users are connected.

        Raises:
            LoadFailed: if they do not connect.
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
            options=self.monitored_cluster.load_options,
        )

    def run(self, name: str, command: Sequence[str], *, cgroup: Path | None = None) -> DrillProcess:
        """Run a program until the undo."""
        self._count += 1
        program = DrillProcess(
            f"{self.name}-{name}-{self._count}",
            command,
            folder=self.monitored_cluster.folder,
            undo_log=self.monitored_cluster.undo_log,
            cgroup=cgroup,
        )
        self._undo_numbers.append(program.undo_number)
        return program

    def simulate(self, because: str) -> None:
        """Record that the fault is simulated, and why."""
        self.simulated_because = because

    # --- undo ------------------------------------------------------------------------------

    def undo(self) -> list[str]:
        """Undo everything; returns a sentence for each fault that could not be undone."""
        self._is_over.set()
        for thread in self._pulses:
            thread.join(30)
        faults, self._faults = self._faults, []
        self._undoing_thread = threading.get_ident()
        for action in reversed(self._afterwards):
            try:
                action()
            except Exception as error:  # noqa: BLE001 - whatever it is, the rest has to be undone, too
                faults.append(f"could not be undone: {error}")
        for load in self._loads:
            load.end()
        faults += self.monitored_cluster.undo_log.undo(self._undo_numbers)
        self._pulses, self._afterwards, self._loads, self._undo_numbers = [], [], [], []
        self._is_over = threading.Event()
        self._undoing_thread = 0
        return faults


__all__ = ["CannotProvoke", "FaultInjector", "Interrupted", "Load", "LoadFailed"]
