"""Sends joins and leaves to the local subscribers that get them, apart from the publications.

What arrives for a channel in one turn of the event loop, or while it may not be sent, is one frame with
one push per line, made once for all subscribers. A storm is bounded in four ways:

- A turn of the loop writes to so many subscribers; the rest of them follows in the next turns.
- A channel sends so many bytes a second to each subscriber: less than what would close a slow one.
- The worker sends so many bytes a second to all subscribers together.
- What waits in a channel, and in all channels, is bounded, and so is how long it waits: joins and leaves
  beyond that are dropped, and counted per subscriber. Delivery is at most once; presence tells who is there.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from typing import Final, Protocol

import orjson

from cluster.codec import JSON, Codec
from cluster.metrics.counters import Counters
from cluster.presence.client_info import member_push

WRITES_PER_TURN: Final = 500
FRAME_BYTES: Final = 65536
#: To one subscriber: half of `client.queue_max_size` by default.
CHANNEL_BYTES_PER_SECOND: Final = 512 * 1024
#: To all subscribers together; as many may be sent at once after a quiet second.
WORKER_BYTES_PER_SECOND: Final = 32 * 1024 * 1024
CHANNEL_WAITING_BYTES: Final = 512 * 1024
#: No more waits in a channel than the worker can send to all its subscribers in this time.
WAITING_SECONDS: Final = 2.0
WORKER_WAITING_BYTES: Final = 16 * 1024 * 1024


class Watcher(Protocol):
    """A client that gets the joins and leaves of a channel."""

    def write(self, data: bytes) -> None:
        """Write whole frames."""


class _Watched:
    """A channel with subscribers that get its joins and leaves, and what waits for them."""

    __slots__ = ("events", "is_due", "name", "next_at", "size", "watchers")

    def __init__(self, channel: str) -> None:
        self.name = orjson.dumps(channel)
        self.watchers: dict[Watcher, Codec] = {}
        self.events: deque[bytes] = deque()
        self.size = 0
        self.next_at = 0.0
        self.is_due = False


class _Pass:
    """One frame, in each codec, on its way to the subscribers that a channel had when it was made."""

    def __init__(self, watched: _Watched, pushes: list[bytes]) -> None:
        self.watched = watched
        self.pushes = pushes
        self.watchers = iter(list(watched.watchers))
        self._frames: dict[str, bytes] = {}

    def frame(self, codec: Codec) -> bytes:
        frame = self._frames.get(codec.name)
        if frame is None:
            frame = self._frames[codec.name] = codec.frames(self.pushes)
        return frame


class JoinLeavePushes:
    """The joins and leaves of one worker's channels."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._channels: dict[str, _Watched] = {}
        self._due: list[tuple[float, int, _Watched]] = []
        self._numbers = itertools.count()
        self._waiting_bytes = 0
        self._budget = float(WORKER_BYTES_PER_SECOND)
        self._budget_at = self._loop.time()
        self._pass: _Pass | None = None
        self._is_turn_due = False
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, channel: str, watcher: Watcher, codec: Codec = JSON) -> None:
        """Send the joins and leaves of a channel to a subscriber from now on."""
        watched = self._channels.get(channel)
        if watched is None:
            watched = self._channels[channel] = _Watched(channel)
        watched.watchers[watcher] = codec

    def unwatch(self, channel: str, watcher: Watcher) -> None:
        """Stop; does nothing for one that is not watching."""
        watched = self._channels.get(channel)
        if watched is None:
            return
        watched.watchers.pop(watcher, None)
        if not watched.watchers:
            del self._channels[channel]
            self._waiting_bytes -= watched.size
            watched.size = 0
            watched.events.clear()

    def receive(self, channel: str, events: list[bytes]) -> None:
        """Take the joins and leaves that one read of the broker brought.

        Args:
            events: JOIN or LEAVE, and the ClientInfo as JSON text, each.
        """
        watched = self._channels.get(channel)
        if watched is None:
            return
        most = min(
            CHANNEL_WAITING_BYTES,
            WAITING_SECONDS * WORKER_BYTES_PER_SECOND / len(watched.watchers),
        )
        for event in events:
            size = len(event)
            if (
                watched.events and watched.size + size > most
            ) or self._waiting_bytes + size > WORKER_WAITING_BYTES:
                self._counters.dropped["join_leave"] += len(watched.watchers)
                continue
            watched.events.append(event)
            watched.size += size
            self._waiting_bytes += size
        self._make_due(watched)
        self._schedule()

    def _make_due(self, watched: _Watched) -> None:
        if watched.events and not watched.is_due:
            watched.is_due = True
            at = max(self._loop.time(), watched.next_at)
            heapq.heappush(self._due, (at, next(self._numbers), watched))

    # --- the turns of the event loop ---------------------------------------------------------

    def _schedule(self) -> None:
        """Have the next turn as soon as there is something that may be sent."""
        if self._is_turn_due or (self._pass is None and not self._due):
            return
        delay = 0.0
        if self._pass is None:
            now = self._loop.time()
            missing = -self._refilled(now) / WORKER_BYTES_PER_SECOND
            delay = max(self._due[0][0] - now, missing)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if delay > 0:
            self._timer = self._loop.call_later(delay, self._turn)
        else:
            self._is_turn_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_turn_due = False
        self._timer = None
        left = WRITES_PER_TURN
        while left > 0:
            if self._pass is None:
                self._pass = self._next_pass()
            if self._pass is None:
                break
            left -= self._write(self._pass, left)
        self._schedule()

    def _refilled(self, now: float) -> float:
        """The bytes that may be sent now; negative if a frame has taken more than there were."""
        earned = (now - self._budget_at) * WORKER_BYTES_PER_SECOND
        self._budget = min(self._budget + earned, float(WORKER_BYTES_PER_SECOND))
        self._budget_at = now
        return self._budget

    def _next_pass(self) -> _Pass | None:
        now = self._loop.time()
        while self._due and self._due[0][0] <= now:
            budget = self._refilled(now)
            if budget <= 0:
                return None
            watched = heapq.heappop(self._due)[2]
            watched.is_due = False
            if not watched.events:
                continue
            made = self._made(watched, budget)
            watched.next_at = now + len(made.frame(JSON)) / CHANNEL_BYTES_PER_SECOND
            self._make_due(watched)
            return made
        return None

    def _made(self, watched: _Watched, budget: float) -> _Pass:
        """Make a frame of the first events of a channel: one at least, as many as the bounds allow."""
        most = min(FRAME_BYTES, budget / len(watched.watchers))
        pushes: list[bytes] = []
        size = 0
        while watched.events and (not pushes or size + len(watched.events[0]) < most):
            event = watched.events.popleft()
            watched.size -= len(event)
            self._waiting_bytes -= len(event)
            pushes.append(member_push(watched.name, event))
            size += len(pushes[-1])
        made = _Pass(watched, pushes)
        self._budget -= len(made.frame(JSON)) * len(watched.watchers)
        return made

    def _write(self, one: _Pass, most: int) -> int:
        """Write to some more subscribers; returns how many were looked at."""
        watchers, pushes = one.watched.watchers, len(one.pushes)
        looked_at = written = size = 0
        for watcher in itertools.islice(one.watchers, most):
            looked_at += 1
            codec = watchers.get(watcher)
            if codec is None:
                continue
            frame = one.frame(codec)
            try:
                watcher.write(frame)
            except RuntimeError:
                # As in the hub: the socket is broken, and is reported as lost soon.
                self._counters.dropped["closed"] += pushes
                continue
            written += 1
            size += len(frame)
        if looked_at < most:
            self._pass = None
        self._counters.messages_out += written * pushes
        self._counters.bytes_out += size
        return looked_at
