"""One server of the store: a link for commands, a link for subscriptions, and one listener of both."""

from __future__ import annotations

from typing import Any, Protocol

from cluster.config.redis_url import Address
from cluster.resp.link import Link
from cluster.resp.portions import Portions


class ShardListener(Protocol):
    """Gets the events of a shard, on the event loop."""

    def messages_received(self, shard: Shard, messages: list[Any]) -> None:
        """The subscription link read messages; `messages` is everything that one read brought."""

    def subscriptions_up(self, shard: Shard) -> None:
        """The subscription link connected, and the server knows no subscription of it."""

    def commands_up(self, shard: Shard) -> None:
        """The link for commands connected."""

    def link_lost(self, shard: Shard) -> None:
        """One of the two links lost its connection, or its server takes no writes any more."""

    def cut_off(self, shard: Shard) -> None:
        """The server answered that it is cut off from its Redis Cluster; both links stay open."""


class Shard:
    """One server (a master) with its link for commands and its link for subscriptions.

    Attributes:
        portions: what its link for subscriptions subscribes to.
        is_cut_off: whether it has answered CLUSTERDOWN, and done nothing since. Clients may still reach a
            master that its cluster has replaced, and what it says of the cluster is old.
    """

    def __init__(self, address: Address, listener: ShardListener, timeout_seconds: float) -> None:
        self.address = address
        self.is_cut_off = False

        def cut_off() -> None:
            self.is_cut_off = True
            listener.cut_off(self)

        self.commands = Link(
            address,
            timeout_seconds=timeout_seconds,
            on_up=lambda: self._commands_up(listener),
            on_down=lambda: listener.link_lost(self),
            on_demoted=self._reset_subscriptions,
            on_cut_off=cut_off,
        )
        self.subscriptions = Link(
            address,
            timeout_seconds=timeout_seconds,
            on_up=lambda: self._subscriptions_up(listener),
            on_down=lambda: listener.link_lost(self),
            on_demoted=self.commands.reset,
            on_cut_off=cut_off,
            on_messages=lambda messages: listener.messages_received(self, messages),
        )
        self.portions = Portions(self.subscriptions)

    def _subscriptions_up(self, listener: ShardListener) -> None:
        listener.subscriptions_up(self)
        if self._is_split():
            self.commands.reset()

    def _commands_up(self, listener: ShardListener) -> None:
        listener.commands_up(self)
        if self._is_split():
            self.subscriptions.reset()

    def _reset_subscriptions(self) -> None:
        self.subscriptions.reset()

    def _is_split(self) -> bool:
        """Whether the links are open to two servers: behind this address is another one now."""
        one, other = self.commands, self.subscriptions
        first, second = one.identity.run_id, other.identity.run_id
        return one.is_up and other.is_up and None is not first != second is not None

    def start(self) -> None:
        self.commands.start()
        self.subscriptions.start()

    @property
    def is_up(self) -> bool:
        return self.commands.is_up and self.subscriptions.is_up

    async def aclose(self) -> None:
        await self.commands.aclose()
        await self.subscriptions.aclose()
