"""Locust as a process of its own: the load that goes on while a fault is injected.

Rules
- Locust replaces the sockets of its process by gevent's, so it never runs inside the drill.
- A load is ready when its ledger says that its users are connected. It is ended by SIGTERM, and then
  settles its ledger and writes it.
- Each load has channels of its own, so that the ledger of one drill never counts the publications of
  another.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loadtest.drilling.environment.drill_processes import ROOT, DrillProcess
from loadtest.drilling.undo import UndoLog

_READY_SECONDS: Final = 60.0
_END_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.2
_TAIL_LINES: Final = 5


@dataclass(frozen=True, slots=True)
class Load:
    """Load by Locust.

    Attributes:
        scenario: a scenario of the load test.
        users: how many users there are.
        spawn_rate: users started per second.
        options: further arguments of the load test, such as `--rate 300`.
        is_accounted: whether its ledger must be clean in the end.
        publishes: whether its users publish, so that a ledger without publications is a fault.
    """

    scenario: str
    users: int
    spawn_rate: float = 50.0
    options: tuple[str, ...] = ()
    is_accounted: bool = True
    publishes: bool = True

    def faults(self, ledger: Mapping[str, Any]) -> dict[str, Any]:
        """What is wrong with the ledger it wrote; empty if nothing is, or if it need not be clean."""
        if not self.is_accounted:
            return {}
        names = ("lost", "twice", "out_of_order", "unrecoverable")
        # A missing ledger is a fault, too.
        found = {name: ledger.get(name, "not accounted for") for name in names}
        faults = {name: value for name, value in found.items() if value != 0}
        if ledger.get("is_final") is not True:
            faults["is_final"] = False
        if self.publishes and not ledger.get("acknowledged"):
            faults["acknowledged"] = 0
        return faults


class LoadFailed(Exception):
    """The load test ended or did not connect; the text has the last lines of its log."""


class RunningLoad:
    """One Locust process.

    Args:
        folder: where its ledger and its log are written.
        name: unique in the environment.
        options: further arguments, which every load of the environment needs.
    """

    def __init__(
        self,
        load: Load,
        *,
        host: str,
        folder: Path,
        name: str,
        undo_log: UndoLog,
        options: Sequence[str] = (),
    ) -> None:
        self.load = load
        self._ledger_file = folder / f"{name}.ledger.json"
        command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py")]
        command += ["--headless", "--only-summary", "--host", host, "--scenario", load.scenario]
        command += ["-u", str(load.users), "-r", f"{load.spawn_rate:g}"]
        command += ["--ledger-file", str(self._ledger_file), "--channel-prefix", f"{name}-"]
        self._process = DrillProcess(
            name, [*command, *options, *load.options], folder=folder, undo_log=undo_log
        )

    def wait_until_connected(self, wait: Callable[[float], None]) -> None:
        """Return when its users are connected.

        Args:
            wait: sleeps so many seconds, or raises when the drill is to end.

        Raises:
            LoadFailed: if it ended, or they are not connected within a minute.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while int(self.ledger().get("connected", 0)) < self.load.users:
            if not self._process.is_running or time.monotonic() > deadline:
                said = self._process.last_lines(_TAIL_LINES)
                raise LoadFailed(f"the load test {self._how()}; it said: {said}")
            wait(_POLL_SECONDS)

    def wait_until_ended(self, seconds: float) -> None:
        """Return when a load that ends by itself has ended.

        Raises:
            LoadFailed: if it has not within so many seconds.
        """
        if not self._process.wait(time.monotonic() + seconds):
            self.end()
            raise LoadFailed(f"the load test did not end within {seconds:g} s")
        self._process.forget()

    def _how(self) -> str:
        if self._process.exit_code is None:
            return f"did not connect {self.load.users} users within {_READY_SECONDS:g} s"
        return f"ended with {self._process.exit_code}"

    def ledger(self) -> dict[str, Any]:
        """Its ledger as it was last written; empty if it has not been yet."""
        try:
            document = json.loads(self._ledger_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}

    def end(self) -> dict[str, Any]:
        """End it and return its settled ledger."""
        self._process.terminate()
        self._process.stop(time.monotonic() + _END_SECONDS)
        self._process.forget()
        return self.ledger()
