"""The members of channels in the store: what every presence store guarantees.

`redis_presence` is the one in use; an in-memory twin in tests/ passes the same contract tests.

An entry belongs to one client id in one channel and lives for `client.presence_ttl` after it was added or
renewed. Joins and leaves are sent to the subscribers of the channel by the same step that changes the
entries, so an entry that has expired gives one leave, whichever worker removes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from cluster.errors import ClusterError, StoreError

#: The kinds of a change; JOIN and LEAVE are told to the channel's subscribers if it publishes them.
ADD: Final = b"a"
JOIN: Final = b"j"
LEAVE: Final = b"l"


class Change(NamedTuple):
    """One change of a channel's members.

    Attributes:
        kind: ADD, JOIN or LEAVE.
        info: the ClientInfo as a JSON object, without newlines.
    """

    kind: bytes
    client: str
    user: str
    info: bytes


class PresenceMode(NamedTuple):
    """What a channel does with a member.

    Attributes:
        has_entries: it has an entry, so that it can be asked for.
        is_published: its join and leave are sent to the subscribers.
    """

    has_entries: bool
    is_published: bool


class Renewed(NamedTuple):
    """The answer to a renewal.

    Attributes:
        missing: clients without an entry: it has expired, or the store has lost it.
        expires_in_seconds: when the first entry of the channel expires; None without entries.
    """

    missing: list[str]
    expires_in_seconds: float | None


class PresenceStats(NamedTuple):
    clients: int
    users: int


class PresenceTooLarge(ClusterError):
    """The entries have more bytes than the caller can take."""


class PresenceStore(Protocol):
    """Presence between workers.

    Guarantees:
        * One caller's changes of a channel are done in order. A change is never repeated: after
          `StoreUnavailable` it may or may not have happened.
        * A LEAVE is sent only if the entry was there, and once; none for an entry that was added without
          `is_published`, whoever removes it. Without entries every LEAVE is sent, and none for a worker that was
          killed.
        * Numbers and entries are those of one moment, but for what changes while a large channel is read.
    """

    def change(
        self,
        channel: str,
        changes: Sequence[Change],
        mode: PresenceMode,
        done: Callable[[StoreError | None], None],
    ) -> None:
        """Change members of one mode, in order; `done` is called with None or the error."""

    def renew(
        self,
        channel: str,
        clients: Sequence[str],
        done: Callable[[Renewed | StoreError], None],
        *,
        sweeps: bool,
    ) -> None:
        """Renew the entries of clients, then remove what has expired if `sweeps`."""

    async def stats(self, channel: str, *, sweeps: bool) -> PresenceStats:
        """The numbers of a channel, whose cost does not depend on them.

        Args:
            sweeps: remove what has expired first.

        Raises:
            StoreError: when the store is unavailable, or refuses.
        """

    async def entries(self, channel: str, *, max_bytes: int, sweeps: bool) -> dict[str, bytes]:
        """The ClientInfo of every entry, by client id.

        Raises:
            PresenceTooLarge: when they have more than `max_bytes` together.
            StoreError: as `stats` does.
        """
