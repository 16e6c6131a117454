"""How many connections a worker closes now, so that all workers have about as many.

Each worker knows the last report of every other one and decides for itself, with one rule for all. It has
no event loop, socket or clock: `now` is passed in, in seconds of any clock that does not go back.

Guarantees
- A worker closes connections only while it has more than the mean, and never so many that it has fewer.
- It closes at most its share of them in any 60 s, and never faster than that share evenly spread.
- It closes none unless the workers have been out of balance, all of them ready and none of them come or
  gone, for `after_seconds`.
- If what it closes comes back to it, it waits twice as long before each further attempt.
"""

from __future__ import annotations

import math
from collections import deque
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

#: Workers that one worker keeps in its table; the mean of so many is that of all.
MOST_WORKERS: Final = 4096
#: Random choice puts a worker further than 3 standard deviations from the mean once in 370 times.
_NOISE: Final = 3.0
#: A worker is hot if it uses so much more of a core than the mean.
_HOT_CPU: Final = 0.25
#: A reconnect costs CPU that workers do not have above this share of a core.
_FULL_CPU: Final = 0.9
#: A late turn of the event loop makes up for no more than this.
_LONGEST_TURN_SECONDS: Final = 2.0
#: The wait after attempts in vain is at most 2 to the power of this times as long.
_MOST_DOUBLINGS: Final = 6
#: An attempt closes so many times the surplus: behind a load balancer that chooses at random, half comes back.
_ATTEMPT_SURPLUSES: Final = 2
#: An attempt of whose connections so many came back was in vain.
_IN_VAIN: Final = 0.75
_WINDOW_SECONDS: Final = 60.0


class ReportedState(StrEnum):
    """What a worker does; connections are moved only while all are steady."""

    STEADY = "steady"
    STARTING = "starting"
    RECOVERING = "recovering"
    DRAINING = "draining"


class WorkerLoad(msgspec.Struct, frozen=True):
    """The report of one worker.

    Attributes:
        connections: open connections.
        cpu: share of one core that it has used since its last report.
        moving: connections that it has closed in the last seconds, which may not be back yet.
    """

    connections: int
    cpu: float = 0.0
    state: str = ReportedState.STEADY
    moving: int = 0


class BalanceRules(NamedTuple):
    """The options of the decision.

    Attributes:
        threshold: share of the mean.
        share_per_minute: share of a worker's connections that it may close in a minute.
        lease_seconds: a worker that has not reported for so long is gone.
    """

    threshold: float
    after_seconds: float
    share_per_minute: float
    lease_seconds: float


class _Attempt(NamedTuple):
    """What a worker had when it began to close connections, how many it may close, and its end."""

    connections: int
    most: int
    ended_at: float = 0.0


class Balance:
    """The decision of one worker.

    Args:
        uid: of this worker, whose own reports are ignored.

    Attributes:
        attempts_in_vain: how many attempts one after the other have come back to this worker.
    """

    def __init__(self, uid: str, rules: BalanceRules) -> None:
        self.attempts_in_vain = 0
        self._uid = uid
        self._rules = rules
        self._peers: dict[str, tuple[float, WorkerLoad]] = {}
        self._members: frozenset[str] = frozenset()
        self._uneven_since: float | None = None
        self._attempt: _Attempt | None = None
        self._left = 0
        self._last_attempt: _Attempt | None = None
        self._allowance = 0.0
        self._decided_at = 0.0
        self._closed: deque[tuple[float, int]] = deque()

    def heard(self, uid: str, load: WorkerLoad, now: float) -> bool:
        """Take the report of a worker; returns False if the table is full."""
        if uid == self._uid:
            return True
        if uid not in self._peers and len(self._peers) >= MOST_WORKERS:
            return False
        self._peers[uid] = (now, load)
        return True

    def own_load(
        self, connections: int, cpu: float, state: ReportedState, now: float
    ) -> WorkerLoad:
        """The report of this worker."""
        # In a lease a client is back, and the report of its new worker is here.
        lease = self._rules.lease_seconds
        moving = sum(count for at, count in self._closed if now - at <= lease)
        return WorkerLoad(connections, cpu, state, moving)

    def to_close(self, own: WorkerLoad, now: float) -> int:
        """Return how many connections to close now; they count as closed."""
        elapsed = min(_LONGEST_TURN_SECONDS, max(0.0, now - self._decided_at))
        self._decided_at = now
        self._forget_old(now)
        loads = [own, *(load for _, load in self._peers.values())]
        if not self._is_quiet(loads):
            self._restart()
            self._last_attempt, self.attempts_in_vain = None, 0
            return 0
        if not self._is_uneven(own, loads):
            self._restart()
            return 0
        if self._uneven_since is None:
            self._uneven_since = now
        wait = self._rules.after_seconds * 2**self.attempts_in_vain
        if now - self._uneven_since < wait:
            return 0
        surplus = own.connections - math.ceil(_mean_with_moving(loads))
        if surplus <= 0 or not _can_receive(loads):
            self._allowance = 0.0
            return 0
        if self._attempt is None and self._was_in_vain(own.connections, now, 2 * wait):
            self.attempts_in_vain = min(_MOST_DOUBLINGS, self.attempts_in_vain + 1)
            self._uneven_since = now
            return 0
        if self._attempt is None:
            self._left = _ATTEMPT_SURPLUSES * surplus
            self._attempt = _Attempt(own.connections, self._left)
        return self._close(min(surplus, self._left), own.connections, elapsed, now)

    def _forget_old(self, now: float) -> None:
        lease = self._rules.lease_seconds
        for uid in [uid for uid, (at, _) in self._peers.items() if now - at > lease]:
            del self._peers[uid]
        while self._closed and now - self._closed[0][0] >= _WINDOW_SECONDS:
            self._closed.popleft()

    def _is_quiet(self, loads: list[WorkerLoad]) -> bool:
        """Whether there are other workers, the same as before, and all of them are steady."""
        members, before = frozenset(self._peers), self._members
        self._members = members
        return (
            bool(members)
            and members == before
            and all(load.state == ReportedState.STEADY for load in loads)
        )

    def _is_uneven(self, own: WorkerLoad, loads: list[WorkerLoad]) -> bool:
        """Whether a worker is far from the mean; once so, until all are near it."""
        mean = _mean(loads)
        cpu = own.cpu - sum(load.cpu for load in loads) / len(loads)
        furthest = max(abs(load.connections - mean) for load in loads)
        band = self._rules.threshold * mean
        near = max(1.0, band / 2)
        above = own.connections - mean
        if self._uneven_since is not None:
            return furthest > near or (above > 1.0 and cpu > _HOT_CPU / 2)
        far = max(1.0, band, _NOISE * math.sqrt(mean))
        return furthest > far or (above > near and cpu > _HOT_CPU)

    def _restart(self) -> None:
        self._uneven_since = None
        self._attempt = None
        self._allowance = 0.0

    def _was_in_vain(self, connections: int, now: float, recent_seconds: float) -> bool:
        """Whether most of what the last attempt has closed came back; asked once for each."""
        last, self._last_attempt = self._last_attempt, None
        if last is None:
            return False
        is_recent = now - last.ended_at <= recent_seconds + _WINDOW_SECONDS
        if is_recent and connections > last.connections - (1 - _IN_VAIN) * last.most:
            return True
        self.attempts_in_vain = 0
        return False

    def _close(self, most: int, connections: int, elapsed: float, now: float) -> int:
        closed_before = sum(count for _, count in self._closed)
        # What the worker had a minute ago, unless connections have come or gone by themselves.
        share = self._rules.share_per_minute * (connections + closed_before)
        self._allowance += share / _WINDOW_SECONDS * elapsed
        window = max(1, math.floor(share)) - closed_before
        count = max(0, min(most, math.floor(self._allowance), window))
        self._allowance = min(self._allowance - count, 1.0 + share / _WINDOW_SECONDS)
        if count:
            self._closed.append((now, count))
            self._left -= count
            if self._left <= 0 and self._attempt is not None:
                # Then the workers must be far from the mean again, for a while.
                self._last_attempt = self._attempt._replace(ended_at=now)
                self._restart()
        return count


def _mean(loads: list[WorkerLoad]) -> float:
    return sum(load.connections for load in loads) / len(loads)


def _mean_with_moving(loads: list[WorkerLoad]) -> float:
    """The mean if no connection that was just closed is back: never below the real one."""
    return sum(load.connections + load.moving for load in loads) / len(loads)


def _can_receive(loads: list[WorkerLoad]) -> bool:
    """Whether a worker below the mean has CPU left."""
    mean = _mean(loads)
    return any(load.cpu < _FULL_CPU for load in loads if load.connections < mean)
