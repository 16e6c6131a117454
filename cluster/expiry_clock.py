"""The clock of what expires while it is held: connections, subscriptions, and the patience with a heartbeat.

Tokens, applications and backends name a Unix time. It is taken as a time of this clock when it is learned,
by what the machine's clock says then; a later step of the machine's clock, by hand or by an NTP client,
neither ends nor extends what is held. Whether a token that comes has expired is asked of the machine's clock.

Rules
- `now` counts the time for which the machine was suspended: CLOCK_BOOTTIME.
- Without a step it is Unix time.
- What is learned is bounded here, and nowhere else: tokens, handlers, backends and the server API come through.
"""

from __future__ import annotations

import time
from typing import Final

#: A connection or subscription expires after a year at the latest, as with Centrifugo, whoever says when: SDKs
#: and Protobuf read its remaining seconds as a number of 32 bits, and it is only asked for again then.
MAXIMUM_SECONDS: Final = 365 * 24 * 3600


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


_AT_BOOT = time.time() - _since_boot()


def now() -> float:
    """Seconds; never set back or forward."""
    return _AT_BOOT + _since_boot()


def bounded(expires_at: float, now: float) -> int:
    """A Unix time, in whole seconds, within a year of `now`; one that has passed is not before 1970."""
    return int(min(max(expires_at, 1), now + MAXIMUM_SECONDS))


def has_passed(expires_at: int) -> bool:
    """Whether a Unix time is now or was before; 0, which is never, is not passed."""
    return expires_at != 0 and expires_at <= time.time()


def from_unix(expires_at: int) -> int:
    """The time of this clock that is as far away as a Unix time, a year at most; 0, which is never, is 0."""
    return max(1, bounded(expires_at, time.time()) + _ahead()) if expires_at else 0


def seconds_left(expires_at: int) -> int:
    """The seconds until a Unix time, as clients are told them: from 1 to those of a year."""
    now = time.time()
    return max(1, int(bounded(expires_at, now) - now))


def to_unix(expires_at: int) -> int:
    """The Unix time that is as far away as a time of this clock; 0, which is never, is 0."""
    return expires_at - _ahead() if expires_at else 0


def _ahead() -> int:
    # Whole seconds, as expiries are: without a step they stay what they were.
    return round(now() - time.time())
