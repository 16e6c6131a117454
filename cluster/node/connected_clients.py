"""The clients whose connect has succeeded, by user."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from cluster.connection import Action, Connection
from cluster.sessions import Session


class Client(Protocol):
    """What a node needs of a client's connection."""

    connection: Connection
    session: Session | None
    headers: Mapping[str, str]

    def write(self, data: bytes) -> None:
        """Write whole frames; never raises."""

    def perform(self, actions: list[Action]) -> None:
        """Perform the actions of the state machine."""

    def watch_expiry(self) -> None: ...


class ConnectedClients:
    """Clients whose connect has succeeded, until they end.

    Attributes:
        count: how many there are.
    """

    def __init__(self) -> None:
        # Most users have one connection, and a set costs 216 bytes.
        self._by_user: dict[str, Client | set[Client]] = {}
        self.count = 0

    def add(self, client: Client) -> None:
        user = client.connection.user
        found = self._by_user.get(user)
        if found is None:
            self._by_user[user] = client
        elif isinstance(found, set):
            found.add(client)
        else:
            self._by_user[user] = {found, client}
        self.count += 1

    def remove(self, client: Client) -> None:
        """Remove a client, if it is there."""
        user = client.connection.user
        found = self._by_user.get(user)
        if isinstance(found, set):
            if client not in found:
                return
            found.discard(client)
            if not found:
                del self._by_user[user]
        elif found is client:
            del self._by_user[user]
        else:
            return
        self.count -= 1

    def of(self, user: str) -> list[Client]:
        """The connections of a user, "" for the anonymous ones."""
        found = self._by_user.get(user)
        if found is None:
            return []
        return list(found) if isinstance(found, set) else [found]

    def __iter__(self) -> Iterator[Client]:
        """All of them, as they are now."""
        for user in list(self._by_user):
            yield from self.of(user)

    @property
    def users(self) -> int:
        """How many users are connected; all anonymous connections count as one."""
        return len(self._by_user)
