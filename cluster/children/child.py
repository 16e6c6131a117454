"""A child of the supervisor: one process, what it reports, and how it is stopped.

The one code path for workers, Valkey and nginx; what differs between them is a `ChildSpec`.

Rules
- alive is not ready is not booted: `state` is what the child says of itself now, `booted_at` is
  set once it has been ready (or not_ready: up, but without its store) for the first time.
- A child stops at its stop signal; past its `Grace` it is killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Literal, Protocol, get_args

from cluster import log
from cluster.children.heartbeat import Heartbeat
from cluster.children.process import Exit, Launch, Reaper, group_ended, spawn

State = Literal["starting", "ready", "not_ready", "draining", "failed", "exited"]
STATES: Final = get_args(State)

_GROUP_SECONDS: Final = 5.0
_OUTPUT_BYTES: Final = 65536
_LONGEST_TEXT: Final = 8192
_TAIL: Final = 4096
_LAST_WORDS: Final = 300


class ChildSpec(Protocol):
    """How one kind of child starts, is found ready, and stops.

    `launch` is called again for a lane only after `ended` was called for it; `watch` reports
    through `Child.report` and never raises.

    Attributes:
        lanes: identities of its processes; as many may run at a time.
        boot_seconds: how long it may be silent after its start; infinite for no limit.
        output_level: at which its own output is logged.
    """

    name: str
    lanes: tuple[str, ...]
    stop_signal: signal.Signals
    boot_seconds: float
    output_level: str

    def launch(self, lane: str) -> Launch:
        """What to start; descriptors made for it are closed by whoever starts it."""

    def watch(self, child: Child, status_fd: int | None) -> Coroutine[Any, Any, None]:
        """Report the child's states for as long as it runs."""

    def said(self, text: str) -> str:
        """What may be logged of the child's own output."""

    def ended(self, lane: str) -> None:
        """Clean up after the process of a lane has ended."""


class Grace:
    """How long stopping may take; a second signal shortens it for everybody who waits."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self.shortened = asyncio.Event()

    def shorten(self, seconds: float) -> None:
        """End in at most `seconds` from now."""
        self._deadline = min(self._deadline, time.monotonic() + seconds)
        self.shortened.set()

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._deadline - time.monotonic())


class Child:
    """One running process and what it said last."""

    def __init__(
        self, spec: ChildSpec, lane: str, reaper: Reaper, changed: Callable[[Child], None]
    ) -> None:
        self.spec: Final = spec
        self.lane: Final = lane
        self.state: State = "starting"
        self.reason = ""
        self.last_words = ""
        self._tail = ""
        self.started_at = time.monotonic()
        self.booted_at: float | None = None
        self.ready_at: float | None = None
        self.exited_at: float | None = None
        self.stop_asked_at: float | None = None
        self.killed_because = ""
        self.phases: list[tuple[str, float]] = []
        self.heartbeat: Heartbeat | None = None
        self._changed = changed
        self._news = asyncio.Event()
        self._log = log.get_logger(child=spec.name, lane=lane)
        launch = spec.launch(lane)
        self.pid, self._output_fd = _spawned(launch)
        self.exited: Final = reaper.watch(self.pid)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._output_fd, self._read_output)
        self._watching = self._loop.create_task(spec.watch(self, launch.status_fd))
        self._ending = self._loop.create_task(self._end())
        self._log.info("child_started", pid=self.pid)

    # --- what it says --------------------------------------------------------------------

    def report(self, state: State, reason: str = "", phase: str = "") -> None:
        """Take in what the child, or whoever asked it, says about its state."""
        if self.state == "exited":
            return
        now = time.monotonic()
        if phase and (not self.phases or self.phases[-1][0] != phase):
            self.phases.append((phase, now))
        if state in ("ready", "not_ready") and self.booted_at is None:
            self.booted_at = now
        if state == "ready" and self.ready_at is None:
            self.ready_at = now
        is_news = (state, reason) != (self.state, self.reason)
        self.state, self.reason = state, reason
        if is_news:
            self._log.debug("child_reported", state=state, reason=reason)
        if is_news:
            self._news.set()
            self._changed(self)

    def left_phases(self) -> None:
        """It has said its last: what remains of its shutdown is its exit."""
        if self.phases and self.phases[-1][0] != "exit":
            self.phases.append(("exit", time.monotonic()))

    def beat(self) -> None:
        """The child was heard; from the first time on it is expected to be heard regularly."""
        now = time.monotonic()
        if self.heartbeat is None:
            self.heartbeat = Heartbeat(now)
        self.heartbeat.beat(now)

    def _read_output(self) -> None:
        try:
            chunk = os.read(self._output_fd, _OUTPUT_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self._loop.remove_reader(self._output_fd)
            return
        raw = chunk.decode("utf-8", "replace")
        text = self.spec.said(raw.strip())
        if not text:
            return
        # A traceback comes in pieces: its last line may have begun in the piece before.
        self._tail = (self._tail + raw)[-_TAIL:]
        self.last_words = self.spec.said(self._tail.strip()).rpartition("\n")[2][-_LAST_WORDS:]
        level = logging.getLevelName(self.spec.output_level.upper())
        self._log.log(level, "child_wrote", text=text[-_LONGEST_TEXT:])

    def shutdown_phases(self) -> dict[str, float]:
        """Seconds of each part of its shutdown, from what it reported on the way."""
        if self.exited_at is None or not self.phases:
            return {}
        ends = [at for _, at in self.phases[1:]] + [self.exited_at]
        seconds: dict[str, float] = {}
        for (phase, began), ended in zip(self.phases, ends, strict=True):
            seconds[phase] = seconds.get(phase, 0.0) + ended - began
        return seconds

    def shutdown_seconds(self) -> float | None:
        """From the stop signal to its exit; None if it was never asked."""
        if self.exited_at is None or self.stop_asked_at is None:
            return None
        return self.exited_at - self.stop_asked_at

    # --- how it ends ---------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended yet."""
        return not self.exited.done()

    @property
    def is_serving(self) -> bool:
        """Whether it is up and has not begun to stop."""
        return self.state in ("ready", "not_ready") and self.stop_asked_at is None

    async def became_ready(self) -> bool:
        """Wait until it has been ready once, or has ended; returns whether it was ready.

        Cancellation leaves the child as it is.
        """
        while self.ready_at is None and self.state != "exited":
            self._news.clear()
            await self._news.wait()
        return self.ready_at is not None

    def is_hung(self, now: float) -> bool:
        """Whether it has been silent for longer than it may be, or takes too long to boot."""
        if not self.is_running:
            return False
        if self.booted_at is None:
            return now - self.started_at >= self.spec.boot_seconds
        # nginx and Valkey never beat: once booted they are not judged.
        return self.heartbeat is not None and self.heartbeat.is_hung(now)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; a child that has ended gets none."""
        if self.is_running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self, because: str) -> None:
        """Kill it now, and remember that it was us."""
        self.killed_because = self.killed_because or because
        self.signal(signal.SIGKILL)

    async def stop(self, grace: Grace) -> Exit:
        """Ask it to stop, wait for its end, kill it when the grace is over.

        Cancellation leaves it stopping.
        """
        self.stop_asked_at = self.stop_asked_at or time.monotonic()
        self.signal(self.spec.stop_signal)
        await self._ended_or(grace.remaining(), grace.shortened)
        if self.is_running and grace.shortened.is_set():
            self.signal(self.spec.stop_signal)
            await self._ended_or(grace.remaining(), None)
        if self.is_running:
            self.kill("deadline")
        return await self.ended()

    async def _ended_or(self, seconds: float, event: asyncio.Event | None) -> None:
        waits: set[asyncio.Future[Any]] = {self.exited}
        extra = self._loop.create_task(event.wait()) if event else None
        if extra:
            waits.add(extra)
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if extra:
                extra.cancel()

    async def ended(self) -> Exit:
        """Wait until it and all of its group are gone and its lane is clean."""
        await asyncio.shield(self._ending)
        return self.exited.result()

    async def _end(self) -> None:
        exit_ = await asyncio.shield(self.exited)
        self.exited_at = time.monotonic()
        if not await group_ended(self.pid, _GROUP_SECONDS):
            self._log.error("child_group_stayed", pid=self.pid)
        self._read_output_to_end()
        self._watching.cancel()
        with suppress(asyncio.CancelledError):
            await self._watching
        self.spec.ended(self.lane)
        self.reason = self.why_it_ended()
        self.state = "exited"
        self._news.set()
        self._log.info("child_exited", pid=self.pid, code=exit_.code, reason=self.reason)
        self._changed(self)

    def _read_output_to_end(self) -> None:
        if self._loop.remove_reader(self._output_fd):
            self._read_output()
            self._loop.remove_reader(self._output_fd)
        os.close(self._output_fd)

    def why_it_ended(self) -> str:
        """One phrase: why we killed it, its own reason, its last words, or its exit."""
        exit_ = str(self.exited.result())
        if self.killed_because:
            return f"killed: {self.killed_because}"
        if self.state == "failed" and self.reason:
            return self.reason
        crashed = self.exited.result().code != 0 and self.stop_asked_at is None
        return f"{self.last_words} ({exit_})" if self.last_words and crashed else exit_

    @property
    def outcome(self) -> str:
        """How it ended, in the words of the exits counter."""
        if self.killed_because:
            return "killed"
        return "clean" if self.exited.result().code == 0 else "crashed"


def _spawned(launch: Launch) -> tuple[int, int]:
    try:
        return spawn(launch)
    except OSError:
        if launch.status_fd is not None:
            os.close(launch.status_fd)
        raise
