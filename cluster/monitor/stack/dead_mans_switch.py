"""A dead man's switch: it receives a heartbeat, and raises the alarm when that stops.

Rules
- It raises no alarm before the first heartbeat.
- One alarm for each silence, and one notification of its end.
- A silence is counted by a clock without steps: one of the machine's clock is no silence, and hides none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from cluster import expiry_clock

Notify = Callable[[str, str, dict[str, Any]], Awaitable[None]]

_KIND: Final = "deadman"
_PATH: Final = "/watchdog"
_CHECKS_PER_LIMIT: Final = 10


class DeadMansSwitch:
    """One switch.

    Args:
        limit_seconds: the longest time without a heartbeat.
        notify: called with kind, path and document of an alarm and of its end.
        now: seconds of a clock that is never set.
    """

    def __init__(
        self, limit_seconds: float, notify: Notify, now: Callable[[], float] = expiry_clock.now
    ) -> None:
        self.limit_seconds: Final = limit_seconds
        self._notify = notify
        self._now = now
        self._last_beat_at: float | None = None
        self._is_raised = False

    def silent_seconds(self) -> float | None:
        """Seconds since the last heartbeat; None before the first one of this process."""
        return None if self._last_beat_at is None else self._now() - self._last_beat_at

    async def beat(self) -> None:
        """Record a heartbeat, which ends an alarm."""
        silent, self._last_beat_at = self.silent_seconds(), self._now()
        if self._is_raised:
            self._is_raised = False
            await self._notify(
                _KIND, _PATH, _document("ended", f"Watchdog is back after {silent:.0f} s")
            )

    async def check(self) -> None:
        """Raise the alarm if it is due."""
        silent = self.silent_seconds()
        if silent is not None and not self._is_raised and silent > self.limit_seconds:
            self._is_raised = True
            text = f"Watchdog has been silent for {silent:.0f} s: no alert can be delivered"
            await self._notify(_KIND, _PATH, _document("alarm", text))

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await asyncio.sleep(min(1.0, self.limit_seconds / _CHECKS_PER_LIMIT))
            await self.check()


def _document(state: str, text: str) -> dict[str, Any]:
    return {"state": state, "text": text}
