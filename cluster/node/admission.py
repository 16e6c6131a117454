"""Admits a connection whose token is right: its session, its user's other connections, revocations.

What the store is asked for one connect is sent together, so that it takes one round trip.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from cluster.auth import Authenticator, Claims
from cluster.errors import CONNECTION_LIMIT
from cluster.metrics.counters import Counters
from cluster.node.connected_clients import Client
from cluster.node.refreshes import RevokedTokens, abandon
from cluster.sessions import Session, Sessions


class ConnectionsOfUsers(Protocol):
    """What a node needs to limit the connections of a user; see `cluster.sessions.user_connections`."""

    @property
    def is_on(self) -> bool: ...

    async def enter(self, user: str, connection: str) -> bool: ...

    def leave(self, user: str, connection: str) -> None: ...


class Admission:
    """The admissions of one worker.

    Args:
        users: counts the connections of each user; None for no limit.
        revocations: what is revoked and blocked; None for nothing.
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

    async def admit(self, claims: Claims, wanted: str | None, client: Client) -> Session:
        """Attach a session, unless the token is revoked or its user blocked; all is sent together."""
        revocations = self._revocations
        looking = revocations.look_up(claims) if revocations is not None else None
        if looking is None:
            return await self._enter(claims.user, wanted, client)
        try:
            session = await self._enter(claims.user, wanted, client)
        except BaseException:
            abandon(looking)
            raise
        try:
            reason = await looking
        except BaseException:
            self.leave(session, client, may_end=not session.is_resumed)
            raise
        if reason:
            self.leave(session, client, may_end=not session.is_resumed)
            raise self._authenticator.refused(reason)
        return session

    async def _enter(self, user: str, wanted: str | None, client: Client) -> Session:
        """Attach a session, and count the connection for its user; both commands are sent together."""
        users = self._users
        if users is None or not user:
            return await self._sessions.attach(user, wanted, client)
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
        self._sessions.detach(session, client, may_end=may_end)
        if self._users is not None and session.user:
            self._users.leave(session.user, client.connection.client)
