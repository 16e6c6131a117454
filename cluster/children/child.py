"""A child of the supervisor: one process, the states it reports, and how it is stopped.

Workers, Valkey and nginx share this code; what differs between them is a `ChildSpec`.

Rules
- Running, booted and ready differ: `state` is the last report, `booted_at` is set when the child
  is ready (or not_ready: up, but without its store) for the first time.
- A child is stopped with its stop signal, and killed if it outlives its `Grace`.
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
from cluster.children.process import Exit, Launch, Reaper, kill_group, spawn

State = Literal["starting", "ready", "not_ready", "draining", "failed", "exited"]
STATES: Final = get_args(State)

_GROUP_SECONDS: Final = 5.0
_OUTPUT_BYTES: Final = 65536
_LONGEST_TEXT: Final = 8192
_TAIL_CHARACTERS: Final = 4096
_LONGEST_OUTPUT_LINE: Final = 300


class ChildSpec(Protocol):
    """How one kind of child starts, becomes ready, and stops.

    `launch` is called again for a lane only after `ended` was called for it; `watch` reports
    through `Child.report` and never raises.

    Attributes:
        lanes: identities of its processes; at most one process per lane runs at a time.
        boot_seconds: how long the boot may take; infinite for no limit.
        output_level: the level at which its captured output is logged.
    """

    name: str
    lanes: tuple[str, ...]
    stop_signal: signal.Signals
    boot_seconds: float
    output_level: str

    def launch(self, lane: str) -> Launch:
        """Return the command and descriptors of a new process; the caller closes `close_fds`."""

    def watch(self, child: Child, status_fd: int | None) -> Coroutine[Any, Any, None]:
        """Report the child's states while it runs."""

    def loggable(self, text: str) -> str:
        """Return the part of the child's output that may be logged."""

    def ended(self, lane: str) -> None:
        """Clean up after the process of a lane has ended.

        Raises:
            OSError: if it cannot; `launch` cleans up then.
        """


class Grace:
    """A deadline for stopping; `shorten` moves it for all tasks that wait for it."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self.shortened = asyncio.Event()

    def shorten(self, seconds: float) -> None:
        """Move the deadline to at most `seconds` from now."""
        self._deadline = min(self._deadline, time.monotonic() + seconds)
        self.shortened.set()

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._deadline - time.monotonic())


class Child:
    """One process and its last reported state."""

    def __init__(
        self, spec: ChildSpec, lane: str, reaper: Reaper, changed: Callable[[Child], None]
    ) -> None:
        self.spec: Final = spec
        self.lane: Final = lane
        self.state: State = "starting"
        self.reason = ""
        self.is_final = False
        self.last_output_line = ""
        self._tail = ""
        self.started_at = time.monotonic()
        self.booted_at: float | None = None
        self.ready_at: float | None = None
        self.exited_at: float | None = None
        self.stop_requested_at: float | None = None
        self.kill_reason = ""
        self.cleanup_error = ""
        self.phases: list[tuple[str, float]] = []
        self.heartbeat: Heartbeat | None = None
        self._changed = changed
        self._state_changed = asyncio.Event()
        self._log = log.get_logger(child=spec.name, lane=lane)
        launch = spec.launch(lane)
        self.pid, self._output_fd = _spawn(launch)
        self.exited: Final = reaper.watch(self.pid)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._output_fd, self._read_output)
        self._watch_task = self._loop.create_task(spec.watch(self, launch.status_fd))
        self._end_task = self._loop.create_task(self._end())
        self._log.info("child_started", pid=self.pid)

    # --- reports -------------------------------------------------------------------------

    def report(
        self, state: State, reason: str = "", phase: str = "", *, is_final: bool = False
    ) -> None:
        """Record a state that the child reported, or that a probe found.

        Args:
            is_final: it has failed in a way in which another attempt would fail, too.
        """
        if self.state == "exited":
            return
        self.is_final = is_final
        now = time.monotonic()
        if phase and (not self.phases or self.phases[-1][0] != phase):
            self.phases.append((phase, now))
        if state in ("ready", "not_ready") and self.booted_at is None:
            self.booted_at = now
        if state == "ready" and self.ready_at is None:
            self.ready_at = now
        has_changed = (state, reason) != (self.state, self.reason)
        self.state, self.reason = state, reason
        if has_changed:
            self._log.debug("child_reported", state=state, reason=reason)
            self._state_changed.set()
            self._changed(self)

    def begin_exit_phase(self) -> None:
        """Begin the phase `exit`: the child has closed its status pipe and reports nothing more."""
        if self.phases and self.phases[-1][0] != "exit":
            self.phases.append(("exit", time.monotonic()))

    def beat(self) -> None:
        """Record a heartbeat; after the first one, further ones are expected regularly."""
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
        text = self.spec.loggable(raw.strip())
        if not text:
            return
        # A traceback arrives in chunks: its last line may have begun in the previous one.
        self._tail = (self._tail + raw)[-_TAIL_CHARACTERS:]
        self.last_output_line = self.spec.loggable(self._tail.strip()).rpartition("\n")[2][
            -_LONGEST_OUTPUT_LINE:
        ]
        level = logging.getLevelName(self.spec.output_level.upper())
        self._log.log(level, "child_wrote", text=text[-_LONGEST_TEXT:])

    def shutdown_phases(self) -> dict[str, float]:
        """Return the seconds of each phase of its shutdown, from its reports."""
        if self.exited_at is None or not self.phases:
            return {}
        ends = [at for _, at in self.phases[1:]] + [self.exited_at]
        seconds: dict[str, float] = {}
        for (phase, began), ended in zip(self.phases, ends, strict=True):
            seconds[phase] = seconds.get(phase, 0.0) + ended - began
        return seconds

    def shutdown_seconds(self) -> float | None:
        """Return the seconds from the stop signal to the exit; None if it got no stop signal."""
        if self.exited_at is None or self.stop_requested_at is None:
            return None
        return self.exited_at - self.stop_requested_at

    # --- stop and exit -------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended yet."""
        return not self.exited.done()

    @property
    def is_serving(self) -> bool:
        """Whether it accepts connections and has not begun to stop."""
        return self.state in ("ready", "not_ready") and self.stop_requested_at is None

    async def became_ready(self) -> bool:
        """Wait until it is ready for the first time or has ended; returns whether it was ready.

        Cancellation leaves the child as it is.
        """
        while self.ready_at is None and self.state != "exited":
            self._state_changed.clear()
            await self._state_changed.wait()
        return self.ready_at is not None

    def is_hung(self, now: float) -> bool:
        """Whether its heartbeats have stopped, or its boot takes longer than `boot_seconds`."""
        if not self.is_running:
            return False
        if self.booted_at is None:
            return now - self.started_at >= self.spec.boot_seconds
        # nginx and Valkey send no heartbeats: once booted they never count as hung.
        return self.heartbeat is not None and self.heartbeat.is_hung(now)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the child has ended."""
        if self.is_running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self, reason: str) -> None:
        """Kill it now and record the reason."""
        self.kill_reason = self.kill_reason or reason
        self.signal(signal.SIGKILL)

    async def stop(self, grace: Grace) -> Exit:
        """Send the stop signal, wait for the exit, and kill it when the grace is over.

        After a cancellation the child still stops, but it is not killed. Another call only waits for it: a
        second signal, which a shortened grace sends, would hurry it.
        """
        if self.stop_requested_at is None:
            self.stop_requested_at = time.monotonic()
            self.signal(self.spec.stop_signal)
        await self._wait_for_exit(grace.remaining(), grace.shortened)
        if self.is_running and grace.shortened.is_set():
            self.signal(self.spec.stop_signal)
            await self._wait_for_exit(grace.remaining(), None)
        if self.is_running:
            self.kill("deadline")
        return await self.ended()

    async def _wait_for_exit(self, seconds: float, event: asyncio.Event | None) -> None:
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
        """Wait until its whole process group has ended and its lane is cleaned up."""
        await asyncio.shield(self._end_task)
        return self.exited.result()

    async def _end(self) -> None:
        exit_ = await asyncio.shield(self.exited)
        self.exited_at = time.monotonic()
        if not await kill_group(self.pid, _GROUP_SECONDS):
            self._log.error("child_group_survived", pid=self.pid)
        self._read_output_to_end()
        self._watch_task.cancel()
        with suppress(asyncio.CancelledError):
            await self._watch_task
        try:
            self.spec.ended(self.lane)
        except OSError as error:
            # For lack of descriptors; `launch` tries again.
            self.cleanup_error = str(error)
            self._log.error("child_cleanup_failed", error=self.cleanup_error)
        self.reason = self.exit_reason()
        self.state = "exited"
        self._state_changed.set()
        self._log.info("child_exited", pid=self.pid, code=exit_.code, reason=self.reason)
        self._changed(self)

    def _read_output_to_end(self) -> None:
        if self._loop.remove_reader(self._output_fd):
            self._read_output()
            self._loop.remove_reader(self._output_fd)
        os.close(self._output_fd)

    def exit_reason(self) -> str:
        """Describe the exit: why it was killed, its own reason, its last output, or its code."""
        exit_ = str(self.exited.result())
        if self.kill_reason:
            return f"killed: {self.kill_reason}"
        if self.state == "failed" and self.reason:
            return self.reason
        crashed = self.exited.result().code != 0 and self.stop_requested_at is None
        return f"{self.last_output_line} ({exit_})" if self.last_output_line and crashed else exit_

    @property
    def outcome(self) -> str:
        """The label `outcome` of `app_worker_exits_total`."""
        if self.kill_reason:
            return "killed"
        return "clean" if self.exited.result().code == 0 else "crashed"


def _spawn(launch: Launch) -> tuple[int, int]:
    try:
        return spawn(launch)
    except OSError:
        if launch.status_fd is not None:
            os.close(launch.status_fd)
        raise
