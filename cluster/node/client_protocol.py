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

    def write(self, data: bytes) -> None:
        """Write whole frames; never raises."""

    def perform(self, actions: list[Action]) -> None:
        """Perform the actions of the state machine."""

    def watch_expiry(self) -> None: ...
