"""Who may enter: sessions are attached unless a token is revoked, its user blocked, or connected too often."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from cluster.auth import Authenticator, Claims
from cluster.errors import CONNECTION_LIMIT
from cluster.metrics.counters import Counters
from cluster.node.client_protocol import Client
from cluster.node.refreshes import RevokedTokens, abandon
from cluster.sessions import Session, Sessions


class ConnectionsOfUsers(Protocol):
    """What a node needs to limit the connections of a user; see `cluster.sessions.user_connections`."""

    @property
    def is_on(self) -> bool: ...

    async def enter(self, user: str, connection: str) -> bool: ...

    def leave(self, user: str, connection: str) -> None: ...


class Admission:
    """Admits the clients of one worker.

    Args:
        users: counts the connections of each user; None for no limit.
        revocations: tokens and users that are refused; None for none.
    """

    def __init__(
        self,
        sessions: Sessions,
        authenticator: Authenticator,
        counters: Counters,
        *,
        users: ConnectionsOfUsers | None,
        revocations: RevokedTokens | None,
    ) -> None:
        self._sessions = sessions
        self._authenticator = authenticator
        self._counters = counters
        self._users = users if users is not None and users.is_on else None
        self._revocations = revocations

    def admit(
        self, claims: Claims, wanted: str | None, client: Client
    ) -> Coroutine[Any, Any, Session]:
        """Attach a session, unless the token is revoked or its user blocked; all is sent together.

        Args:
            wanted: the session that the client asks for; None for a new one.

        Raises:
            StoreError: the store is unavailable.
            Disconnect: 3504 for a user with too many connections, 3507 for one that is blocked.
        """
        revocations = self._revocations
        answer = revocations.look_up(claims) if revocations is not None else None
        if answer is None:
            return self._enter(claims.user, wanted, client)
        return self._enter_unless(answer, claims, wanted, client)

    async def _enter_unless(
        self, answer: asyncio.Future[str], claims: Claims, wanted: str | None, client: Client
    ) -> Session:
        try:
            session = await self._enter(claims.user, wanted, client)
        except BaseException:
            abandon(answer)
            raise
        try:
            reason = await answer
        except BaseException:
            self.leave(session, client, may_end=not session.is_resumed)
            raise
        if reason:
            self.leave(session, client, may_end=not session.is_resumed)
            raise self._authenticator.refused(reason)
        return session

    def _enter(self, user: str, wanted: str | None, client: Client) -> Coroutine[Any, Any, Session]:
        """Attach a session, and count the connection for its user; both commands are sent together."""
        if self._users is None or not user:
            return self._sessions.attach(user, wanted, client)
        return self._enter_counted(self._users, user, wanted, client)

    async def _enter_counted(
        self, users: ConnectionsOfUsers, user: str, wanted: str | None, client: Client
    ) -> Session:
        try:
            session, entered = await asyncio.gather(
                self._sessions.attach(user, wanted, client),
                users.enter(user, client.connection.client),
                return_exceptions=True,
            )
        except asyncio.CancelledError:
            users.leave(user, client.connection.client)
            raise
        if isinstance(session, Session) and entered is True:
            return session
        if isinstance(session, Session):
            self._sessions.detach(session, client, may_end=not session.is_resumed)
        if entered is not False:
            users.leave(user, client.connection.client)
        for outcome in (session, entered):
            if isinstance(outcome, BaseException):
                raise outcome
        self._counters.rejected["user_connection_limit"] += 1
        raise CONNECTION_LIMIT.fresh()

    def leave(self, session: Session, client: Client, *, may_end: bool) -> None:
        """Let a client go, which `admit` has admitted.

        Args:
            may_end: whether a session that nobody holds any more ends at once.
        """
        self._sessions.detach(session, client, may_end=may_end)
        if self._users is not None and session.user:
            self._users.leave(session.user, client.connection.client)
