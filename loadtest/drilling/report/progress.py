"""The progress of a run: a live table in a terminal, one line per drill elsewhere.

Rules
- A terminal gets a table that is redrawn; any other output gets plain lines.
- NO_COLOR is respected (rich does it). Drills call it from their own threads.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cluster.terminal_text import escaped, escaped_lines
from loadtest.drilling.result import DrillResult, RunResult

_REFRESHES_PER_SECOND: Final = 4
_STYLE: Final = {"passed": "green", "failed": "bold red", "simulated": "yellow"}


class Progress:
    """Shows one run.

    Args:
        planned: how many drills there will be.
        console: for tests; standard output otherwise.
    """

    def __init__(self, run: RunResult, *, planned: int, console: Console | None = None) -> None:
        self._run = run
        self._planned = planned
        self._console = console or Console()
        self._lock = threading.Lock()
        self._running: dict[int, tuple[DrillResult, str]] = {}
        self._ended = 0
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=self._table,
                refresh_per_second=_REFRESHES_PER_SECOND,
                transient=True,
            )
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)
        if error is None:
            self._say(self.summary())

    def started(self, result: DrillResult) -> None:
        """A drill began."""
        with self._lock:
            self._running[id(result)] = result, "starting"

    def stepped(self, result: DrillResult, step: str) -> None:
        """A step was reached."""
        with self._lock:
            self._running[id(result)] = result, step.replace("_", " ")

    def ended(self, result: DrillResult) -> None:
        """A drill ended."""
        with self._lock:
            self._running.pop(id(result), None)
            self._ended += 1
        seconds = (result.ended_at or time.time()) - result.started_at
        style = _STYLE[result.result]
        line = f"[{style}]{result.result:<9}[/] {result.name:<28} {seconds:5.0f} s"
        if (firing := result.seconds("firing")) is not None:
            line += f"   fired after {firing:.1f} s"
        self._say(line)
        if result.result == "failed":
            why = escaped_lines(result.why)
            self._console.print(f"          {result.failed_at}: {why}", markup=False)
        if result.simulated_because:
            self._console.print(f"          {escaped(result.simulated_because)}", markup=False)

    def note(self, text: str) -> None:
        """A message for the user."""
        self._console.print(escaped_lines(text), style="dim", markup=False, highlight=False)

    def summary(self) -> str:
        """The last line."""
        good = sum(result.result != "failed" for result in self._run.results)
        seconds = (self._run.ended_at or time.time()) - self._run.started_at
        words = f"{good} of {self._planned} alerts proven in {seconds:.0f} s"
        if self._run.uncovered:
            words += f"; no drill for {', '.join(self._run.uncovered)}"
        return words

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False)

    def _table(self) -> Table:
        now = time.time()
        table = Table(box=None, pad_edge=False, show_header=False)
        for name in ("alert", "environment", "step", "seconds"):
            table.add_column(name, justify="right" if name == "seconds" else "left")
        with self._lock:
            running = list(self._running.values())
        for result, step in running:
            seconds = f"{now - result.started_at:.0f} s"
            table.add_row(result.name, result.environment, step, seconds, style="cyan")
        elapsed = f"{now - self._run.started_at:.0f} s"
        table.add_row(f"{self._ended} of {self._planned} ended", "", "", elapsed, style="bold")
        return table
