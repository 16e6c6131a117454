"""One service: keeps one child process running; restarts, rolls and stops it.

Rules
- A lane is one of the identities in `ChildSpec.lanes`. It is free again only after its process
  has been waited for.
- `current` is the child that serves. A roll starts a new child on a free lane, waits until it is
  ready, then stops the old one, so at least one child always serves. If the new one ends while the old one
  drains, it is restarted like any other.
- If the new child of a roll does not become ready, the roll fails and the old child keeps serving.
- If a child fails to boot three times in a row, or once in a way in which it would again, the whole program
  ends, not only the service. It is tried until it works if another service does the same work (`is_replaceable`), or if the machine lacks what a
  start needs (descriptors, memory, processes) and the service has served before.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

from cluster import log
from cluster.children.backoff import Backoff, RestartPolicy
from cluster.children.child import Child, ChildSpec, Grace
from cluster.children.process import Reaper
from cluster.errors import BootFailed

_ROLL_TIMEOUT_SECONDS: Final = 60.0
_SHORTAGES: Final = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC)


class ServiceListener(Protocol):
    """Called on changes of a service's children."""

    def child_changed(self, service: Service, child: Child) -> None:
        """The state of a child has changed, or the child has ended."""

    def child_restarted(self, service: Service, reason: str) -> None:
        """A child was started to replace one that ended or that a roll replaces."""

    def system_refused(self, service: Service, error_type: str) -> None:
        """The operating system refused to start a child (`spawn`) or to clean up (`background`)."""


class Service:
    """Keeps one child running.

    Args:
        spec: how the child is started, watched and stopped.
        reaper: reports exits of processes.
        policy: delay and budget of restarts.
        listener: called on every change.
        grace: returns a new grace period, for stopping the old child of a roll.
        wait_for_dependencies: awaited before a restart, until everything the child needs to boot
            is available.
        is_replaceable: whether another service does the work of this one while its child does not boot.
    """

    def __init__(
        self,
        spec: ChildSpec,
        *,
        reaper: Reaper,
        policy: RestartPolicy,
        listener: ServiceListener,
        grace: Callable[[], Grace],
        wait_for_dependencies: Callable[[], Awaitable[None]] | None = None,
        is_replaceable: Callable[[], bool] = lambda: False,
    ) -> None:
        self.spec: Final = spec
        self.current: Child | None = None
        self.children: dict[str, Child] = {}
        self._reaper = reaper
        self._backoff = Backoff(policy)
        self._listener = listener
        self._grace = grace
        self._wait_for_dependencies = wait_for_dependencies
        self._is_replaceable = is_replaceable
        self._start_error = ""
        self._has_served = False
        self._is_short = False
        self._closed = asyncio.Event()
        self._replaced: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._end_tasks: dict[Child, asyncio.Task[None]] = {}
        self._log = log.get_logger(child=spec.name, service=spec.lanes[0])

    # --- state ---------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether some child is ready and accepts connections."""
        return any(c.state == "ready" and c.is_serving for c in self.children.values())

    @property
    def is_serving(self) -> bool:
        """Whether some child accepts connections, even if it answers them with an error."""
        return any(c.is_serving for c in self.children.values())

    @property
    def reason(self) -> str:
        """Why the service is not ready."""
        if self.current is None:
            return "not started"
        return self.current.reason or self.current.state

    # --- running -------------------------------------------------------------------------

    def start(self) -> asyncio.Task[None]:
        """Start the first child; the returned task restarts it until the service is stopped.

        The task raises `BootFailed` after too many boot failures in a row.
        """
        first = self._start("")
        return asyncio.get_running_loop().create_task(self._run(first))

    async def _run(self, child: Child | None) -> None:
        while not self._closed.is_set():
            lost, reason = await self._wait_until_lost(child)
            if self._closed.is_set():
                return
            is_short = lost is None and self._is_short and self._has_served
            is_final = lost is not None and lost.is_final
            if reason == "boot" and not is_short and self._is_over(is_final):
                why = lost.reason if lost else self._start_error
                if not self._is_replaceable():
                    raise BootFailed(self._boot_failure_text(why))
                self._log.error("boot_fails_again", times=self._backoff.boot_failures, reason=why)
            await self._pause(lost)
            if self._closed.is_set():
                return
            child = self.current if self.is_serving else self._start(reason)

    def _is_over(self, is_final: bool) -> bool:
        """Count a boot failure; returns whether it was one too many."""
        return self._backoff.record_boot_failure() or is_final

    async def _wait_until_lost(self, child: Child | None) -> tuple[Child | None, str]:
        """Wait until the child that serves has ended; once a roll has replaced it, that is the new one."""
        while child is not None:
            has_ended = await self._has_ended_or_is_replaced(child)
            if has_ended and (child is self.current or self._closed.is_set()):
                return child, _restart_reason(child)
            child = self.current
        return None, "boot"

    async def _has_ended_or_is_replaced(self, child: Child) -> bool:
        """Wait until a child has ended, or a roll makes another one `current`; returns whether it has ended."""
        end = self._end_tasks.get(child)
        if end is None:
            return True
        await asyncio.wait({end, self._replaced}, return_when=asyncio.FIRST_COMPLETED)
        if not end.done():
            return False
        await end
        return True

    def _boot_failure_text(self, reason: str) -> str:
        lane = self.spec.lanes[0]
        name = lane if lane == self.spec.name else f"{self.spec.name} {lane}"
        times = self._backoff.boot_failures
        often = f" {times} times in a row" if times > 1 else ""
        return f"{name} failed to boot{often}, correct the cause and start again: {reason}"

    async def _pause(self, lost: Child | None) -> None:
        now = time.monotonic()
        ready_at = lost.ready_at if lost else None
        is_spent = self._backoff.is_budget_spent(now)
        seconds = self._backoff.delay(now, 0.0 if ready_at is None else now - ready_at)
        log_event = self._log.error if is_spent else self._log.warning
        log_event(
            "restart_budget_spent" if is_spent else "child_lost",
            reason=lost.reason if lost else "",
            restart_in_seconds=round(seconds, 3),
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        if self._wait_for_dependencies is not None and not self._closed.is_set():
            await self._wait_for_dependencies()

    def _start(self, reason: str) -> Child | None:
        """Start a child on a free lane; None if the operating system cannot start it."""
        lane = next(lane for lane in self.spec.lanes if lane not in self.children)
        try:
            child = Child(self.spec, lane, self._reaper, self._changed)
        except OSError as error:
            self._start_error = str(error)
            self._is_short = error.errno in _SHORTAGES
            self._log.error("child_start_failed", error=self._start_error)
            self._listener.system_refused(self, "spawn")
            return None
        self.children[lane] = child
        self._end_tasks[child] = asyncio.get_running_loop().create_task(self._report_end(child))
        if reason != "roll":
            self.current = child
        if reason:
            self._listener.child_restarted(self, reason)
        return child

    async def _report_end(self, child: Child) -> None:
        await child.ended()
        del self.children[child.lane]
        self._end_tasks.pop(child, None)
        if child.cleanup_error:
            self._listener.system_refused(self, "background")
        self._listener.child_changed(self, child)

    def _changed(self, child: Child) -> None:
        if child.is_serving:
            self._has_served = True
            self._backoff.record_boot()
        if child.state != "exited":
            self._listener.child_changed(self, child)

    # --- rolling and stopping ------------------------------------------------------------

    async def roll(self) -> bool:
        """Replace the child by a new one without an interruption; returns False if that failed.

        A child that is being started may have read what was changed since: it is replaced once it is ready.
        Does nothing if none runs, because the next one reads what is there then. Cancellation leaves the
        new child running beside the old one until the service is stopped.
        """
        if self.current is not None:
            # Bounded: a child that does not boot is killed after `boot_seconds`.
            await self.current.became_ready()
        old = self.current
        if old is None or not old.is_serving or self._closed.is_set():
            return True
        new = self._start("roll")
        if new is None or not await self._became_ready(new):
            # The lane is free only when the whole process group has ended.
            await self._wait_until_ended(new)
            self._log.error("roll_failed", reason=new.reason if new else self._start_error)
            return False
        old, self.current = self.current, new
        replaced, self._replaced = self._replaced, asyncio.get_running_loop().create_future()
        replaced.set_result(None)
        if old is not None and old is not new and old.is_running:
            await self._stop_child(old, self._grace())
        return True

    async def _wait_until_ended(self, child: Child | None) -> None:
        if child is not None and (task := self._end_tasks.get(child)) is not None:
            await asyncio.shield(task)

    async def _became_ready(self, new: Child) -> bool:
        try:
            async with asyncio.timeout(_ROLL_TIMEOUT_SECONDS):
                return await new.became_ready() and new.is_serving
        except TimeoutError:
            new.kill(f"not ready within {_ROLL_TIMEOUT_SECONDS:g} s: {new.reason or new.state}")
            await self._wait_until_ended(new)
            return False

    async def _stop_child(self, child: Child, grace: Grace) -> None:
        await child.stop(grace)
        await self._wait_until_ended(child)

    async def stop(self, grace: Grace) -> None:
        """Stop every child and restart none."""
        self._closed.set()
        children = list(self.children.values())
        await asyncio.gather(*(self._stop_child(child, grace) for child in children))


def _restart_reason(child: Child) -> str:
    if child.booted_at is None:
        return "boot"
    return "hung" if child.kill_reason else "crash"
