"""A worker's links to Redis or Valkey, and the broker, sessions and canary that use them."""

from __future__ import annotations

import asyncio

from cluster.broker import BrokerListener
from cluster.broker.canary import Canary
from cluster.broker.loss_check import LossCheck
from cluster.broker.redis_broker import RedisBroker
from cluster.broker.redis_control import RedisControlBroker
from cluster.config import Config
from cluster.errors import StoreUnavailable
from cluster.metrics.counters import Counters
from cluster.presence.redis_presence import RedisPresence
from cluster.resp.keys import check_access, key_prefix
from cluster.resp.layout import check_layout, rename_layout_1
from cluster.resp.router import Router
from cluster.resp.shard import Shard
from cluster.sessions import SessionListener
from cluster.sessions.redis_sessions import RedisSessions
from cluster.sessions.revocations import Revocations
from cluster.sessions.user_connections import UserConnections


class RedisStores:
    """The stores of one worker; open broker and sessions before `start`.

    Args:
        name: unique to this worker among all that share the store.

    Attributes:
        sessions, users: as they were opened.
        revocations: tokens and users that are refused.
        canary: whether messages of the subscriptions really arrive.
    """

    sessions: RedisSessions
    users: UserConnections

    def __init__(self, config: Config, counters: Counters, *, name: str) -> None:
        self._config = config
        self._prefix = key_prefix(config.broker)
        self._counters = counters
        self._router = Router(
            config.broker.redis_urls,
            timeout_seconds=config.broker.timeout,
            on_link_lost=self._link_lost,
            on_commands_up=self._commands_up,
        )
        self._loss_check: LossCheck | None = None
        self._subscriptions = self._router.subscriptions
        self.revocations = Revocations(self._router, prefix=self._prefix)
        self.canary = Canary(
            self._router,
            self._subscriptions,
            prefix=self._prefix,
            name=name,
            interval_seconds=config.broker.canary_interval,
            deaf_after_seconds=config.broker.deaf_after,
        )

    def _link_lost(self) -> None:
        self._counters.errors["store"] += 1

    def _commands_up(self, shard: Shard) -> None:
        if self._loss_check is not None:
            self._loss_check.connected(shard)

    def open_broker(self, listener: BrokerListener) -> RedisBroker:
        broker = RedisBroker(
            self._router,
            self._subscriptions,
            prefix=self._prefix,
            listener=listener,
            counters=self._counters,
        )
        self._loss_check = LossCheck(
            broker, self._counters, timeout_seconds=self._config.broker.timeout
        )
        return broker

    def open_control(self, listener: BrokerListener) -> RedisControlBroker:
        return RedisControlBroker(
            self._router,
            self._subscriptions,
            prefix=self._prefix,
            listener=listener,
            counters=self._counters,
        )

    def open_sessions(self, listener: SessionListener) -> RedisSessions:
        self.sessions = RedisSessions(
            self._router,
            self._subscriptions,
            prefix=self._prefix,
            ttl_seconds=self._config.session.ttl,
            state_max_size=self._config.session.state_max_size,
            listener=listener,
        )
        return self.sessions

    def open_presence(self) -> RedisPresence:
        ttl = self._config.client.presence_ttl
        return RedisPresence(self._router, prefix=self._prefix, ttl_seconds=ttl)

    def open_user_connections(self) -> UserConnections:
        limit = self._config.client.user_connection_limit
        self.users = UserConnections(self._router, prefix=self._prefix, limit=limit)
        return self.users

    @property
    def is_up(self) -> bool:
        """Whether every server is connected."""
        return self._router.is_up

    async def start(self) -> None:
        """Connect, and subscribe to the changes of sessions; may be tried again.

        Raises:
            StoreError, OSError: a server cannot be used; the text is the server's reason, if it gave one.
        """
        await self._router.start()
        try:
            async with asyncio.timeout(self._config.broker.timeout):
                await check_layout(self._router, self._config.broker.prefix)
                await rename_layout_1(self._router, self._config.broker.prefix, self._prefix)
                await check_access(self._router, self._prefix)
                await self.sessions.start()
        except TimeoutError:
            refusal = self._subscriptions.refusal
            raise StoreUnavailable(
                f"the store refuses subscriptions: {refusal}"
                if refusal
                else f"the store does not answer within {self._config.broker.timeout:g} s"
            ) from None

    async def aclose(self) -> None:
        """Close every link."""
        if self._loss_check is not None:
            await self._loss_check.aclose()
        await self._router.aclose()
