"""The channels of sessions, as commands of the server API change them: their other and later connections follow.

The changes of one session are written in the order of their commands, each on top of those before it: what
this worker has written counts before the store has told it. Changes that wait are written together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, NamedTuple

from cluster.errors import LIMIT_EXCEEDED, ClusterError
from cluster.log import get_logger
from cluster.metrics.counters import Counters
from cluster.sessions import Session, SessionConflict, SessionGone, Sessions

log = get_logger()

#: Sessions that are written at a time.
AT_ONCE: Final = 100
#: Changes of one session that may wait; later ones are not kept, and counted.
MOST_WAITING: Final = 1000
#: How often what was written is compared with what the store has told.
SEEN_SECONDS: Final = 1.0
_UPDATES: Final = 5
_CONFLICT_SECONDS: Final = 0.05


class ChannelChange(NamedTuple):
    """A session gets a channel, or loses it."""

    channel: str
    has_it: bool


class _Written:
    """A session with changes that wait, or whose last one the store has not told yet.

    Attributes:
        version, channels: as this worker has written them last; version -1 if it has not.
    """

    __slots__ = ("channels", "is_busy", "session", "version", "waiting")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.waiting: list[ChannelChange] = []
        self.is_busy = False
        self.version = -1
        self.channels: tuple[str, ...] = ()

    @property
    def newest(self) -> tuple[int, tuple[str, ...]]:
        """Version and channels, as far as this worker knows."""
        if self.version > self.session.version:
            return self.version, self.channels
        return self.session.version, self.session.channels

    @property
    def is_settled(self) -> bool:
        """Whether the session alone says everything; one without connections here is told nothing."""
        is_seen = self.version <= self.session.version or not self.session.holders
        return is_seen and not self.is_busy


class SessionChannels:
    """Changes the channels of sessions at one worker.

    Args:
        run: keeps a coroutine alive.
        channel_limit: most channels of a session.
    """

    def __init__(
        self,
        sessions: Sessions,
        run: Callable[[Coroutine[Any, Any, None]], None],
        counters: Counters,
        *,
        channel_limit: int,
    ) -> None:
        self._sessions = sessions
        self._run = run
        self._counters = counters
        self._channel_limit = channel_limit
        self._written: dict[str, _Written] = {}
        self._busy: deque[_Written] = deque()
        self._writers = 0
        self._forgetting: asyncio.TimerHandle | None = None

    def change(self, sessions: Iterable[Session], change: ChannelChange) -> None:
        """Add a channel to sessions, or remove it, after what they were told before."""
        refused = sum(not self._takes(session, change) for session in sessions)
        if refused:
            self._counters.errors["internal"] += refused
            log.error("session_update_failed", reason="too many changes wait", sessions=refused)
        while self._writers < min(AT_ONCE, len(self._busy)):
            self._writers += 1
            self._run(self._write_all())

    def _takes(self, session: Session, change: ChannelChange) -> bool:
        written = self._written.get(session.id)
        if written is None:
            if (change.channel in session.channels) is change.has_it:
                return True
            written = self._written[session.id] = _Written(session)
            self._forget_later()
        # A client that comes back makes another object of its session.
        written.session = session
        if len(written.waiting) >= MOST_WAITING:
            return False
        written.waiting.append(change)
        if not written.is_busy:
            written.is_busy = True
            self._busy.append(written)
        return True

    def _forget_later(self) -> None:
        if self._forgetting is None:
            loop = asyncio.get_running_loop()
            self._forgetting = loop.call_later(SEEN_SECONDS, self._forget)

    def _forget(self) -> None:
        self._forgetting = None
        for name in [name for name, one in self._written.items() if one.is_settled]:
            del self._written[name]
        if self._written:
            self._forget_later()

    async def _write_all(self) -> None:
        try:
            while self._busy:
                one = self._busy.popleft()
                try:
                    while one.waiting:
                        changes, one.waiting = one.waiting, []
                        await self._write(one, changes)
                except Exception:
                    self._counters.errors["internal"] += 1
                    log.exception("session_update_failed", reason="unexpected")
                finally:
                    one.is_busy = False
        finally:
            self._writers -= 1

    async def _write(self, one: _Written, changes: list[ChannelChange]) -> None:
        """Change one session; another worker with connections of it does the same, and one of them is first."""
        for _ in range(_UPDATES):
            version, channels = one.newest
            changed, refused = self._changed(channels, changes)
            try:
                if changed != channels:
                    one.version = await self._sessions.update(
                        one.session.id, channels=changed, expected_version=version
                    )
                    one.channels = changed
                for _ in range(refused):
                    self._counters.client_error(LIMIT_EXCEEDED.code)
                return
            except SessionGone:
                return
            except SessionConflict:
                # The change is on its way to this worker.
                await asyncio.sleep(_CONFLICT_SECONDS)
            except ClusterError as error:
                self._failed("store", len(changes), str(error))
                return
        self._failed("internal", len(changes), "it changes all the time")

    def _failed(self, kind: str, changes: int, reason: str) -> None:
        self._counters.errors[kind] += changes
        log.error("session_update_failed", reason=reason)

    def _changed(
        self, channels: tuple[str, ...], changes: list[ChannelChange]
    ) -> tuple[tuple[str, ...], int]:
        """The channels after the changes, and how many additions the limit refuses."""
        kept, refused = dict.fromkeys(channels), 0
        for channel, has_it in changes:
            if not has_it:
                kept.pop(channel, None)
            elif channel not in kept and len(kept) >= self._channel_limit:
                refused += 1
            else:
                kept[channel] = None
        return tuple(kept), refused
