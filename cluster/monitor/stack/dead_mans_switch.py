"""A dead man's switch: it hears a heartbeat, and raises the alarm when there is none any more.

Rules
- It is quiet until it has heard the heartbeat once: what was never there cannot stop.
- One alarm for each silence, and one notice of its end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

Tell = Callable[[str, str, dict[str, Any]], Awaitable[None]]

_KIND: Final = "deadman"
_PATH: Final = "/watchdog"
_LOOKS_PER_LIMIT: Final = 10


class DeadMansSwitch:
    """One switch.

    Args:
        limit_seconds: how long the heartbeat may be away.
        tell: called with kind, path and document of an alarm and of its end.
    """

    def __init__(self, limit_seconds: float, tell: Tell) -> None:
        self.limit_seconds: Final = limit_seconds
        self._tell = tell
        self._heard_at = 0.0
        self._is_raised = False

    async def heard(self, at: float) -> None:
        """Take in a heartbeat; an alarm ends."""
        silent, self._heard_at = at - self._heard_at, at
        if self._is_raised:
            self._is_raised = False
            await self._tell(
                _KIND, _PATH, _document("ended", f"Watchdog is back after {silent:.0f} s")
            )

    async def look(self, now: float) -> None:
        """Raise the alarm if it is due."""
        silent = now - self._heard_at
        if self._heard_at and not self._is_raised and silent > self.limit_seconds:
            self._is_raised = True
            text = f"Watchdog is silent for {silent:.0f} s: alerts do not travel"
            await self._tell(_KIND, _PATH, _document("alarm", text))

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(min(1.0, self.limit_seconds / _LOOKS_PER_LIMIT))
            await self.look(time.time())


def _document(state: str, text: str) -> dict[str, Any]:
    return {"state": state, "text": text}
