"""A token bucket for the commands and control frames of each connection, kept as one number per connection.

The bucket of a connection is the time at which it would be full again (the generic cell rate algorithm,
ITU-T I.371). Tokens are taken for a slice of commands at a time, in the turn of the event loop that
handles them, so a command costs nothing and no timer runs.
"""

from __future__ import annotations

from typing import Final

from cluster.connection import COMMANDS_PER_TURN

#: How long a connection waits after its first command too many; each further one doubles it, up to the last.
FIRST_DELAY_SECONDS: Final = 0.1
LAST_DELAY_SECONDS: Final = 1.6

#: A connection with more refusals than this is closed, unless it had none for a while (`forgets`).
MOST_REFUSALS: Final = 6

# A timer of the event loop may fire this much early; a refusal for that would be the server's fault.
_TIMER_SECONDS: Final = 0.005
_ROUNDING_SECONDS: Final = 1e-6


class CommandRate:
    """The rate of every connection of a worker.

    Args:
        rate: tokens per second; 0 allows any number.
        burst: most tokens that a connection saves up.

    Attributes:
        slice: commands that are handled in one turn of the event loop, and tokens taken for them.
    """

    __slots__ = ("_burst_seconds", "_token_seconds", "slice")

    def __init__(self, rate: int, burst: int) -> None:
        self.slice = COMMANDS_PER_TURN
        self._token_seconds = self._burst_seconds = 0.0
        if rate:
            # A client that must wait for a slice waits a quarter of a second at most.
            self.slice = max(1, min(COMMANDS_PER_TURN, rate // 4, burst // 4))
            self._token_seconds = 1 / rate
            self._burst_seconds = burst / rate

    def full_at(self, full_at: float, tokens: int, now: float) -> float:
        """When the bucket is full again after `tokens` more were taken."""
        return max(full_at, now) + tokens * self._token_seconds

    def allows(self, full_at: float, now: float) -> bool:
        """Whether a bucket that is full at that time has not been emptied."""
        return full_at - now <= self._burst_seconds + _ROUNDING_SECONDS

    def forgets(self, refused_until: float, now: float) -> bool:
        """Whether the last refusal is so long ago that refusals are forgotten.

        Args:
            refused_until: when its delay was over, and its bucket would have been full if nothing more had come.
        """
        return now - refused_until > LAST_DELAY_SECONDS

    def emptied(self, full_at: float, now: float) -> float:
        """When the bucket is full again, as if no more tokens had been taken than it held."""
        return min(full_at, now + self._burst_seconds)

    def delay(self, full_at: float, refusals: int, now: float) -> float:
        """How long a connection waits: longer each time, and until there is a slice of tokens."""
        delay = min(LAST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** (refusals - 1))
        next_slice = full_at + self.slice * self._token_seconds - self._burst_seconds
        return max(delay, next_slice - now + _TIMER_SECONDS)
