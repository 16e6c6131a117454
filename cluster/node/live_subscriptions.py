"""Subscribes a connected client to a channel that its session has got meanwhile."""

from __future__ import annotations

from typing import Protocol

from cluster.connection import Action, Connection, SubscriptionSource
from cluster.errors import INSUFFICIENT_STATE, ClusterError, Disconnect
from cluster.log import get_logger
from cluster.node.channels import Channels
from cluster.node.server_side import ServerSide
from cluster.node.subscribe import SubscriptionBuilder
from cluster.sessions import Session

log = get_logger()


class SubscribedClient(Protocol):
    """A client that is subscribed; see `cluster.node.client_protocol.Client`."""

    connection: Connection
    session: Session | None

    def write(self, data: bytes) -> None: ...

    def perform(self, actions: list[Action]) -> None: ...


async def add_server_side(
    subscriptions: SubscriptionBuilder, channels: Channels, client: SubscribedClient, channel: str
) -> None:
    """Subscribe a client to a channel that its session has got."""
    try:
        wanted = ServerSide(channel, SubscriptionSource.SESSION)
        [subscribed] = await subscriptions.prepare_server_side(
            (wanted,), {}, client.connection.user, client, client.connection.codec
        )
    except Disconnect:
        return  # The client has gone.
    except ClusterError as error:
        # When it connects again it gets the channels of its session.
        log.error("server_side_subscribe_failed", reason=str(error))
        client.perform(client.connection.disconnect(INSUFFICIENT_STATE))
        return
    actions: list[Action] = []
    joining = subscribed.joining
    if client.session is not None and channel in client.session.channels:
        actions = client.connection.subscribe_added(
            channel,
            subscribed.result,
            is_positioned=subscribed.is_positioned,
            source=subscribed.source,
        )
    if not actions:
        channels.abort(joining.channel, joining.start)
        return
    try:
        client.perform(actions)
    except BaseException:
        channels.abort(joining.channel, joining.start)
        # It has the subscription, and would get nothing of it.
        client.perform(client.connection.disconnect(INSUFFICIENT_STATE))
        raise
    channels.join(joining, client, client.write)
