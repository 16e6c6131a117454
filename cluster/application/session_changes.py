"""Changes of sessions by handlers: in the store, and until this worker has seen them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

from cluster.errors import LIMIT_EXCEEDED
from cluster.sessions import Session, Sessions

#: A change of a session arrives within milliseconds; it may be lost with the connection to the store.
_SEEN_WITHIN_SECONDS: Final = 1.0


class SessionChanges:
    """Implements `SessionUpdates` for one worker.

    Args:
        demand_channel: raises `ClientError` if there is no such channel.
        channel_limit: most channels of a session.
    """

    def __init__(
        self, sessions: Sessions, demand_channel: Callable[[str], object], *, channel_limit: int
    ) -> None:
        self._sessions = sessions
        self._demand_channel = demand_channel
        self._channel_limit = channel_limit
        self._seen: dict[str, list[tuple[int, asyncio.Future[None]]]] = {}

    async def update(self, session: Session, state: Any, expected_version: int | None) -> int:
        return await self._sessions.update(
            session.id, state=state, expected_version=expected_version
        )

    async def set_channels(self, session: Session, channels: tuple[str, ...]) -> int:
        for channel in channels:
            if channel not in session.channels:
                self._demand_channel(channel)
        if len(channels) > max(self._channel_limit, len(session.channels)):
            raise LIMIT_EXCEEDED.fresh()
        return await self._sessions.update(
            session.id, channels=channels, expected_version=session.version
        )

    async def seen(self, session: Session, version: int) -> None:
        if session.version >= version or not session.holders:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._seen.setdefault(session.id, [])
        waiting.append((version, future))
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SEEN_WITHIN_SECONDS):
                    await future
        finally:
            waiting.remove((version, future))
            if not waiting and self._seen.get(session.id) is waiting:
                del self._seen[session.id]

    def session_changed(self, session: Session) -> None:
        """Wake the handlers that wait for a change."""
        for version, future in self._seen.get(session.id, ()):
            if version <= session.version and not future.done():
                future.set_result(None)
