"""Sessions: records in the store that outlive connections, so that a client can continue at any worker.

Guarantees: a session is resumed only by its own user and only before its expiry, and a refusal
does not say which of the two failed; changes reach every worker that holds the session, each
with a version that only grows; ids are 128 random bits, secrets, and never logged whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from cluster.errors import ClusterError

#: Number of buckets that sessions are spread over, by id; the keys of a bucket share a slot.
BUCKETS: Final = 64


class SessionGone(ClusterError):
    """The session does not exist, or no longer."""


class SessionConflict(ClusterError):
    """The session's version is not the expected one."""


class StateInvalid(ClusterError):
    """The state cannot be written as JSON."""


class StateTooLarge(ClusterError):
    """The state is larger than `session.state_max_size`."""


@dataclass(slots=True)
class Session:
    """One session, as a worker that holds it knows it.

    Attributes:
        messages: received from the client over all its connections, as of the last attach.
        received: received by this worker and not yet written to the store.
        holders: this worker's connections of the session.
        state: the application's value, as JSON; `null` when never set.
        channels: channels the server subscribes its connections to.
        is_resumed: whether this worker's first connection resumed it rather than created it.
    """

    id: str
    user: str
    created_ms: int
    messages: int = 0
    received: int = 0
    version: int = 0
    state: bytes = b"null"
    channels: tuple[str, ...] = ()
    is_resumed: bool = False
    holders: list[object] = field(default_factory=list)


class SessionListener(Protocol):
    """Is called when a session that this worker holds has changed."""

    def session_changed(self, session: Session) -> None:
        """`session` already carries the new state, channels and version."""


class Sessions(Protocol):
    """The sessions of one worker, in front of the store that all workers share."""

    async def attach(self, user: str, session_id: str | None, holder: object) -> Session:
        """Resume the session if it exists and is the user's, else create one; nothing is left if cancelled."""

    def detach(self, session: Session, holder: object, *, may_end: bool) -> None:
        """Remove a holder; the record is kept for its ttl, or deleted if it is empty."""

    async def update(
        self,
        session_id: str,
        *,
        state: Any = ...,
        channels: tuple[str, ...] | None = None,
        expected_version: int | None = None,
    ) -> int:
        """Change state or channels; returns the new version. Every holder is notified.

        Args:
            state: JSON text as `bytes`, which clients get as it is, or another value, which is encoded.

        Raises:
            SessionGone, SessionConflict, StateInvalid, StateTooLarge: and nothing has changed.
            StoreError: and it is unknown whether it has changed.
        """
