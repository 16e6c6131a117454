"""One service: a place where a child is kept, started again, rolled and stopped.

Rules
- A service has as many lanes as its kind; a lane is free only after its process was waited for.
- `current` is the child that serves. A roll starts the next one on the free lane, waits until it
  is ready and then retires the old one, so the service never has less than one.
- A roll whose new child does not become ready is given up; the old one goes on serving.
- A child that fails to boot three times in a row ends the program, not merely the service.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

from cluster import log
from cluster.children.backoff import Backoff, RestartPolicy
from cluster.children.child import Child, ChildSpec, Grace
from cluster.children.process import Reaper
from cluster.errors import BootFailed

_ROLL_SECONDS: Final = 60.0


class ServiceListener(Protocol):
    """Who hears what happens at a service."""

    def child_changed(self, service: Service, child: Child) -> None:
        """A child reports another state, or has ended."""

    def child_restarted(self, service: Service, reason: str) -> None:
        """A child was started in place of one that ended or is to be replaced."""


class Service:
    """Keeps one child of a kind running.

    Args:
        spec: what is kept.
        reaper: who hears of exits.
        policy: how soon and how often it is started again.
        listener: told of every change.
        grace: makes the grace of a child that is retired.
        needed: waits until what the child cannot boot without is there.
    """

    def __init__(
        self,
        spec: ChildSpec,
        *,
        reaper: Reaper,
        policy: RestartPolicy,
        listener: ServiceListener,
        grace: Callable[[], Grace],
        needed: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.spec: Final = spec
        self.current: Child | None = None
        self.children: dict[str, Child] = {}
        self._reaper = reaper
        self._restarts = Backoff(policy)
        self._listener = listener
        self._grace = grace
        self._needed = needed
        self._start_error = ""
        self._closed = asyncio.Event()
        self._gone: dict[Child, asyncio.Task[None]] = {}
        self._log = log.get_logger(child=spec.name, service=spec.lanes[0])

    # --- what is true now ----------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether some child serves and has what it needs."""
        return any(c.state == "ready" and c.is_serving for c in self.children.values())

    @property
    def is_serving(self) -> bool:
        """Whether some child accepts connections, be it to refuse them itself."""
        return any(c.is_serving for c in self.children.values())

    @property
    def reason(self) -> str:
        """Why it is not ready."""
        if self.current is None:
            return "not started"
        return self.current.reason or self.current.state

    # --- keeping -------------------------------------------------------------------------

    def start(self) -> asyncio.Task[None]:
        """Start the first child now; the task keeps it, and ends when the service is stopped.

        The task raises `BootFailed` when trying on is pointless.
        """
        first = self._start("")
        return asyncio.get_running_loop().create_task(self._keep(first))

    async def _keep(self, child: Child | None) -> None:
        while not self._closed.is_set():
            lost, reason = await self._until_lost(child)
            if self._closed.is_set():
                return
            if reason == "boot" and self._restarts.failed_to_boot():
                raise BootFailed(self._why_boot_failed(lost))
            await self._pause(lost)
            if self._closed.is_set():
                return
            child = self.current if self.is_serving else self._start(reason)

    async def _until_lost(self, child: Child | None) -> tuple[Child | None, str]:
        """Wait for the end of the child that serves, following rolls."""
        while child is not None:
            await self._until_gone(child)
            if child is self.current or self._closed.is_set():
                return child, _reason(child)
            child = self.current
        return None, "boot"

    def _why_boot_failed(self, child: Child | None) -> str:
        reason = child.reason if child else self._start_error
        lane = self.spec.lanes[0]
        who = lane if lane == self.spec.name else f"{self.spec.name} {lane}"
        return (
            f"{who} failed to boot"
            f" {self._restarts.boot_failures} times in a row, correct the cause and start again:"
            f" {reason}"
        )

    async def _pause(self, lost: Child | None) -> None:
        now = time.monotonic()
        well = lost.ready_at if lost else None
        is_spent = self._restarts.is_budget_spent(now)
        seconds = self._restarts.delay(now, 0.0 if well is None else now - well)
        report = self._log.error if is_spent else self._log.warning
        report(
            "restart_budget_spent" if is_spent else "child_lost",
            reason=lost.reason if lost else "",
            restart_in_seconds=round(seconds, 3),
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        if self._needed is not None and not self._closed.is_set():
            await self._needed()

    def _start(self, reason: str) -> Child | None:
        """Start a child on a free lane; None if the system does not let us."""
        lane = next(lane for lane in self.spec.lanes if lane not in self.children)
        try:
            child = Child(self.spec, lane, self._reaper, self._changed)
        except OSError as error:
            self._start_error = str(error)
            self._log.error("child_start_failed", error=self._start_error)
            return None
        self.children[lane] = child
        self._gone[child] = asyncio.get_running_loop().create_task(self._follow(child))
        if reason != "roll":
            self.current = child
        if reason:
            self._listener.child_restarted(self, reason)
        return child

    async def _follow(self, child: Child) -> None:
        await child.ended()
        del self.children[child.lane]
        self._gone.pop(child, None)
        self._listener.child_changed(self, child)

    def _changed(self, child: Child) -> None:
        if child.is_serving:
            self._restarts.booted()
        if child.state != "exited":
            self._listener.child_changed(self, child)

    # --- rolling and stopping ------------------------------------------------------------

    async def roll(self) -> bool:
        """Replace the child without a moment in which nobody serves; False if it cannot be.

        A service whose child is being started anyway is left alone. Cancellation leaves the new
        child running beside the old one until the service is stopped.
        """
        old = self.current
        if old is None or not old.is_serving or self._closed.is_set():
            return True
        new = self._start("roll")
        if new is None or not await self._is_well(new):
            # Its lane is free only when all of it is gone.
            await self._until_gone(new)
            self._log.error("roll_failed", reason=new.reason if new else self._start_error)
            return False
        old, self.current = self.current, new
        if old is not None and old is not new and old.is_running:
            await self._retire(old, self._grace())
        return True

    async def _until_gone(self, child: Child | None) -> None:
        if child is not None and (gone := self._gone.get(child)) is not None:
            await asyncio.shield(gone)

    async def _is_well(self, new: Child) -> bool:
        try:
            async with asyncio.timeout(_ROLL_SECONDS):
                return await new.became_ready() and new.is_serving
        except TimeoutError:
            await self._retire(new, Grace(0))
            return False

    async def _retire(self, child: Child, grace: Grace) -> None:
        await child.stop(grace)
        await self._until_gone(child)

    async def stop(self, grace: Grace) -> None:
        """Stop every child and start none again."""
        self._closed.set()
        children = list(self.children.values())
        await asyncio.gather(*(self._retire(child, grace) for child in children))


def _reason(child: Child) -> str:
    if child.booted_at is None:
        return "boot"
    return "hung" if child.killed_because else "crash"
