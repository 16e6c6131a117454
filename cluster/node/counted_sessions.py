"""Attaches a session and counts the connection for its user, for `client.user_connection_limit`.

They may be kept by different servers, of which one answers and the other does not.
"""

from __future__ import annotations

import asyncio

from cluster.errors import CONNECTION_LIMIT
from cluster.metrics.counters import Counters
from cluster.node.client_protocol import Client, ConnectionsOfUsers
from cluster.sessions import Session, Sessions


async def attach_counted(
    sessions: Sessions,
    users: ConnectionsOfUsers,
    counters: Counters,
    *,
    user: str,
    wanted: str | None,
    client: Client,
) -> Session:
    """Do both, or neither: both commands are sent together, and what has worked is undone if the other has not.

    Args:
        wanted: the session that the client would resume.

    Raises:
        Disconnect: 3504 for a user with too many connections.
        StoreError: when the store is unavailable.
    """
    connection = client.connection.client
    attaching = asyncio.ensure_future(sessions.attach(user, wanted, client))
    entering = asyncio.ensure_future(users.enter(user, connection))
    try:
        session, entered = await asyncio.gather(attaching, entering, return_exceptions=True)
    except asyncio.CancelledError:
        # Both have ended. One may have worked, and who waited for it will never know.
        if _has_worked(attaching):
            _detach(sessions, attaching.result(), client)
        users.leave(user, connection)
        raise
    if isinstance(session, Session) and entered is True:
        return session
    if isinstance(session, Session):
        _detach(sessions, session, client)
    if entered is not False:
        users.leave(user, connection)
    for outcome in (session, entered):
        if isinstance(outcome, BaseException):
            raise outcome
    counters.rejected["user_connection_limit"] += 1
    raise CONNECTION_LIMIT.fresh()


def _has_worked(attaching: asyncio.Future[Session]) -> bool:
    return attaching.done() and not attaching.cancelled() and attaching.exception() is None


def _detach(sessions: Sessions, session: Session, client: Client) -> None:
    sessions.detach(session, client, may_end=not session.is_resumed)
