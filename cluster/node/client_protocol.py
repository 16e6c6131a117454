"""What a node needs of a client's connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cluster.connection import Action, Connection
from cluster.sessions import Session


class Client(Protocol):
    """What a node needs of a client's connection."""

    connection: Connection
    session: Session | None
    headers: Mapping[str, str]
    emulated_headers: Mapping[str, str]

    def write(self, data: bytes) -> None:
        """Write whole frames; never raises."""

    def perform(self, actions: list[Action]) -> None:
        """Perform the actions of the state machine."""

    def watch_expiry(self) -> None: ...


class ConnectionsOfUsers(Protocol):
    """What a node needs to limit the connections of a user; see `cluster.sessions.user_connections`."""

    @property
    def is_on(self) -> bool: ...

    async def enter(self, user: str, connection: str) -> bool: ...

    def leave(self, user: str, connection: str) -> None: ...
