"""Locust as a program of its own: the load that goes on while something is broken.

Rules
- Locust replaces the sockets of its process by gevent's, so it never runs inside the drill.
- A load is ready when its ledger says that its users are connected; it ends by SIGTERM, settles its
  ledger and writes it down.
- Each load has channels of its own, so that one drill's account never holds another's publications.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loadtest.drilling import undo
from loadtest.drilling.undo import UndoLog

ROOT: Final = Path(__file__).resolve().parents[3]
_READY_SECONDS: Final = 60.0
_END_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.2
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
        speaks: whether somebody publishes, so that a ledger without publications is a fault.
    """

    scenario: str
    users: int
    spawn_rate: float = 50.0
    options: tuple[str, ...] = ()
    is_accounted: bool = True
    speaks: bool = True

    def faults(self, account: Mapping[str, Any]) -> dict[str, Any]:
        """What is wrong with the ledger it left; empty if nothing is, or it is not looked at."""
        if not self.is_accounted:
            return {}
        names = ("lost", "twice", "out_of_order", "unrecoverable")
        # No account at all is a fault, too.
        found = {name: account.get(name, "not accounted for") for name in names}
        faults = {name: value for name, value in found.items() if value != 0}
        if account.get("is_final") is not True:
            faults["is_final"] = False
        if self.speaks and not account.get("acknowledged"):
            faults["acknowledged"] = 0
        return faults


class LoadFailed(Exception):
    """The load test ended or did not connect; the text says what it said last."""


class RunningLoad:
    """One Locust process.

    Args:
        folder: where its ledger and its log are written.
        name: unique on the environment.
    """

    def __init__(
        self, load: Load, *, host: str, folder: Path, name: str, undo_log: UndoLog
    ) -> None:
        self.load = load
        self._undo_log = undo_log
        self._ledger = folder / f"{name}.ledger.json"
        self._log = folder / f"{name}.log"
        command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py")]
        command += ["--headless", "--only-summary", "--host", host, "--scenario", load.scenario]
        command += ["-u", str(load.users), "-r", f"{load.spawn_rate:g}"]
        command += ["--ledger-file", str(self._ledger), "--channel-prefix", f"{name}-"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *load.options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
            )
        self._mend = undo_log.note(undo.ended(self._process.pid))

    def wait_until_connected(self, wait: Callable[[float], None]) -> None:
        """Return when its users are connected.

        Args:
            wait: sleeps so many seconds, or raises when the drill is to end.

        Raises:
            LoadFailed: it ended, or they are not within a minute.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while int(self.account().get("connected", 0)) < self.load.users:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise LoadFailed(f"the load test {self._how()}; it said: {self._last_words()}")
            wait(_LOOK_SECONDS)

    def wait_until_ended(self, seconds: float) -> None:
        """Return when a load that ends by itself has ended.

        Raises:
            LoadFailed: it has not within so many seconds.
        """
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            raise LoadFailed(f"the load test did not end within {seconds:g} s") from None
        self._undo_log.forget(self._mend)

    def _how(self) -> str:
        if self._process.returncode is None:
            return f"did not connect {self.load.users} users within {_READY_SECONDS:g} s"
        return f"ended with {self._process.returncode}"

    def account(self) -> dict[str, Any]:
        """Its ledger as it was last written; empty if it was not yet."""
        try:
            document = json.loads(self._ledger.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}

    def end(self) -> dict[str, Any]:
        """End it and return its settled ledger."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._undo_log.forget(self._mend)
        return self.account()

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return (
            " | ".join(line.strip() for line in lines[-_TAIL_LINES:] if line.strip()) or "nothing"
        )
