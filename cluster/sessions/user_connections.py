"""The connections of each user at all workers, for `client.user_connection_limit`.

A sorted set per user has the id of each connection and the time until which it counts. Its worker renews
it, so the connections of a worker that was killed stop counting after `LEASE_SECONDS`. The time is that of
the store's clock.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from cluster.errors import StoreError
from cluster.log import get_logger
from cluster.resp.keys import KIND_USER
from cluster.resp.router import Router
from cluster.resp.scripts import USER_ENTER

log = get_logger()

#: How long a connection counts after it was renewed for the last time.
LEASE_SECONDS: Final = 60.0

_RENEWED_AT_A_TIME: Final = 200


class UserConnections:
    """Counts the connections of users.

    Args:
        prefix: as `cluster.resp.keys.key_prefix` makes it.
        limit: most connections of a user; 0 counts nothing.

    Attributes:
        is_on: whether there is a limit.
    """

    def __init__(self, router: Router, *, prefix: str, limit: int) -> None:
        self.is_on = limit > 0
        self._router = router
        self._prefix = prefix
        self._limit = limit
        self._held: dict[str, set[str]] = {}

    async def enter(self, user: str, connection: str) -> bool:
        """Count a connection; returns False if its user has as many as are allowed.

        Raises:
            StoreError: and it may or may not be counted; call `leave`.
        """
        if not await self._run(user, self._limit, [connection]):
            return False
        self._held.setdefault(user, set()).add(connection)
        return True

    def leave(self, user: str, connection: str) -> None:
        """A connection has ended, or was given up: it counts no longer."""
        held = self._held.get(user)
        if held is not None:
            held.discard(connection)
            if not held:
                del self._held[user]
        self._router.submit(self._key(user), ("ZREM", self._key(user), connection), _left)

    async def renew(self) -> None:
        """Renew every connection of this worker; call it three times per lease.

        Raises:
            StoreError: some are not renewed.
        """
        failed: StoreError | None = None
        users = list(self._held)
        for first in range(0, len(users), _RENEWED_AT_A_TIME):
            calls = [
                self._run(user, 0, sorted(held))
                for user in users[first : first + _RENEWED_AT_A_TIME]
                if (held := self._held.get(user))
            ]
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(outcome, StoreError):
                    failed = outcome
                elif isinstance(outcome, BaseException):
                    raise outcome
        if failed is not None:
            raise failed

    async def _run(self, user: str, limit: int, connections: list[str]) -> int:
        args: list[int | str] = [int(LEASE_SECONDS * 1000), limit, *connections]
        return int(await self._router.call_script(USER_ENTER, (self._key(user),), args))

    def _key(self, user: str) -> str:
        return f"{{{self._prefix}:{KIND_USER}:{user}}}.connections"


def _left(reply: Any) -> None:
    if isinstance(reply, StoreError):
        # It stops counting at the end of its lease.
        log.debug("user_leave_failed", reason=str(reply))
