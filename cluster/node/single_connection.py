"""One connection per user, at whichever worker: the newest; the user's others are closed with 3504.

Rules
- A connection is told to all workers by the control channel once it is open, and the order of that channel
  decides which is the newest. A worker closes only connections that were told before, so of two that
  connect at the same time at two workers one remains, and not none.
- One that could not be told, because the store was away, is closed by the next at the same worker only.

Source: section 9.1 of the protocol, `single_connection`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from cluster.connection import State
from cluster.errors import CONNECTION_LIMIT, ClientError
from cluster.node.client_protocol import Client
from cluster.node.control import Control
from cluster.node.node import Node

_KIND: Final = "single_connection"
#: Users whose connection has ended are forgotten when there are so many more than connections.
_MOST_ENDED: Final = 1_000


class NewestConnection(msgspec.Struct):
    """A user has this connection, and no other that was told before."""

    user: str
    client: str


class SingleConnections:
    """The connections of one worker, as far as they are the newest of their users."""

    def __init__(self, node: Node, control: Control) -> None:
        self._node = node
        self._control = control
        #: By user: the id of the connection here that was told last.
        self._told: dict[str, str] = {}
        control.on_command(_KIND, NewestConnection, self._follow)

    async def tell(self, client: Client) -> None:
        """Tell all workers of a connection that is open."""
        message = NewestConnection(client.connection.user, client.connection.client)
        try:
            await self._control.tell(_KIND, message)
        except ClientError:
            return  # The control channel has counted and logged it.

    async def _follow(self, newest: NewestConnection) -> None:
        before = self._told.pop(newest.user, None)
        for client in self._node.clients.of(newest.user):
            if client.connection.state is not State.CONNECTED:
                continue
            if client.connection.client == newest.client:
                self._told[newest.user] = newest.client
            elif client.connection.client == before:
                client.perform(client.connection.disconnect(CONNECTION_LIMIT))
        if len(self._told) > self._node.clients.count + _MOST_ENDED:
            self._told = {
                user: told for user, told in self._told.items() if self._node.clients.of(user)
            }
