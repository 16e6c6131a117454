"""Refreshes: a connection, or a subscription, gets a new token before the old one expires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from cluster import __version__, expiry_clock, json_text
from cluster.application import ApplicationCallbacks
from cluster.application.client_handles import HandledClient
from cluster.auth import ANONYMOUS, Authenticator, Claims
from cluster.connection import Action, Connection
from cluster.errors import (
    BAD_REQUEST_CLOSE,
    CONNECTION_EXPIRED,
    INSUFFICIENT_STATE,
    INTERNAL,
    PERMISSION_DENIED,
    SERVER_ERROR,
    ClientError,
    ClusterError,
    Disconnect,
    StoreError,
)
from cluster.log import get_logger
from cluster.metrics.counters import Counters
from cluster.node.client_protocol import Client
from cluster.node.server_side import has_changed
from cluster.node.subscription_tokens import add_expiry

log = get_logger()


class RevokedTokens(Protocol):
    """What a node needs to refuse revoked tokens; see `cluster.sessions.revocations`."""

    def look_up(self, claims: Claims) -> asyncio.Future[str] | None: ...


def abandon(look_up: asyncio.Future[str]) -> None:
    """Give up a look-up; nothing waits for its error."""
    if not look_up.cancel() and not look_up.cancelled():
        look_up.exception()


class Refreshes:
    """The refreshes of one worker's clients; those that are refused are counted.

    Args:
        revocations: what is revoked and blocked; None for nothing.
        timeout_seconds: how long a look-up may take.
        on_info_changed: called with a client that others see with another info from now on, and with
            the channel if it is that of one subscription.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        revocations: RevokedTokens | None,
        counters: Counters,
        *,
        timeout_seconds: float,
        on_info_changed: Callable[..., None],
    ) -> None:
        self._on_info_changed = on_info_changed
        self._authenticator = authenticator
        self._revocations = revocations
        self._counters = counters
        self._timeout_seconds = timeout_seconds
        #: Set by the node if the worker runs an application.
        self.application: ApplicationCallbacks | None = None
        #: How often this worker was told to close connections of a user or a token. One whose connect or
        #: refresh was in progress meanwhile was not found, and is looked up again.
        self.told = 0

    async def look_again(self, client: Client, claims: Claims) -> None:
        """Close a client that has connected while its token was revoked, or its user blocked."""
        try:
            await self._demand_unrevoked(claims)
        except Disconnect as why:
            client.perform(client.connection.disconnect(why))
        except ClientError:
            # It cannot be known: the client connects again, and is looked up then.
            client.perform(client.connection.disconnect(SERVER_ERROR))

    async def connection(self, client: HandledClient, token: str) -> dict[str, Any]:
        """Extend a connection that expires, as the token says, or the application's handler.

        Raises:
            ClientError, Disconnect: as `verified` does, 3010 for a token with other channels; or what the
                handler raises.
        """
        told = self.told
        application, connection = self.application, client.connection
        verify = partial(self._same_channels, connection, token)
        if application is None or not application.handles_refreshing:
            claims = await verify()
        else:
            verified, answer = await application.refreshing(client, token, verify)
            known = verified
            if known is None:
                # The handler knows the client by something else. That the token was refused is counted.
                known = connection.claims._replace(info=connection.info)
                await self._demand_unrevoked(known)
            info = known.info if answer.info is None else json_text.of(answer.info)
            claims = known._replace(expires_at=answer.expires_at, info=info)
        result = self.take(client, claims)
        if told != self.told:
            with self._counted():
                await self._demand_unrevoked(claims)
        return result

    async def by_server(self, client: HandledClient, delay_seconds: float) -> Disconnect | None:
        """Ask the application whether a connection that has expired may go on, unless it is refused already.

        If it cannot be asked, or looked up, the connection is asked for again until it has been expired for so long.

        Returns:
            Why the connection must be closed; None if it may go on, or is to be asked for again.

        Raises:
            Disconnect: 3507 for a blocked user, 3500 if the token it was made with is revoked; or what the
                handler raises.
        """
        application, connection = self.application, client.connection
        assert application is not None, "an application said that it refreshes the connection"
        try:
            with self._counted(Disconnect):
                await self._demand_unrevoked(connection.claims)
            answer = await application.refreshing_for_server(client)
        except ClientError:
            if expiry_clock.now() < connection.expires_at + delay_seconds:
                return None
            answer = None
        if answer is None or expiry_clock.has_passed(answer.expires_at):
            self._counters.refresh_failures["connection"] += 1
            return CONNECTION_EXPIRED.fresh()
        connection.expires_at = expiry_clock.from_unix(answer.expires_at)
        if answer.info is not None:
            connection.info = json_text.of(answer.info)
            self._on_info_changed(client)
        return None

    @property
    def asks_for_subscriptions(self) -> bool:
        """Whether the application is asked about subscriptions that expire."""
        return self.application is not None and self.application.handles_sub_refreshing

    async def subscription_by_server(
        self, client: HandledClient, channel: str, delay_seconds: float
    ) -> list[Action]:
        """Ask the application whether a subscription that has expired may go on; returns what ends it.

        If it cannot be asked, it is asked again until the subscription has been expired for so long.

        Raises:
            Disconnect: what the handler raises.
        """
        application, connection = self.application, client.connection
        assert application is not None, "an application said that it refreshes the subscription"
        asked_for = connection.channels.get(channel)
        if asked_for is None:
            return []
        try:
            answer, is_decided = await application.sub_refreshing(client, channel), True
        except ClientError:
            answer, is_decided = None, expiry_clock.now() >= asked_for.expires_at + delay_seconds
        # It may have ended meanwhile, and be another one.
        if connection.channels.get(channel) is not asked_for:
            return []
        if answer is None or expiry_clock.has_passed(answer.expires_at):
            ends: list[Action] = connection.subscription_expired(channel) if is_decided else []
            return ends
        info = json_text.of(answer.info) if answer.info is not None else b""
        connection.sub_refreshed(channel, info, expiry_clock.from_unix(answer.expires_at))
        if info:
            self._on_info_changed(client, channel)
        return []

    async def _same_channels(self, connection: Connection, token: str) -> Claims:
        claims = await self.verified(connection, token)
        if has_changed(claims, connection.channels):
            raise INSUFFICIENT_STATE.fresh()
        return claims

    async def verified(self, connection: Connection, token: str) -> Claims:
        """The claims of the token of a refresh.

        Raises:
            ClientError: 100 if its key cannot be read now, or the store is unavailable; 110 if its
                `expire_at` has passed.
            Disconnect: 3005 for an expired token, 3500 for a bad or revoked token or another user's, 3507 for
                a blocked user, 3501 if the connection was not made with a token.
        """
        if connection.claims is ANONYMOUS:
            raise BAD_REQUEST_CLOSE.fresh()
        with self._counted():
            claims = await self._authenticator.refreshed(token, connection.user)
            await self._demand_unrevoked(claims)
        return claims

    @contextmanager
    def _counted(self, refusal: type[ClusterError] = ClusterError) -> Iterator[None]:
        """Count a refresh of a connection that is refused."""
        try:
            yield
        except refusal:
            self._counters.refresh_failures["connection"] += 1
            raise

    async def _demand_unrevoked(self, claims: Claims) -> None:
        revocations = self._revocations
        looking = revocations.look_up(claims) if revocations is not None else None
        if looking is None:
            return
        try:
            reason = await asyncio.wait_for(looking, self._timeout_seconds)
        except (StoreError, TimeoutError) as error:
            self._counters.errors["store"] += 1
            log.error("refresh_failed", reason=str(error) or "the store is too slow")
            raise INTERNAL.fresh() from None
        if reason:
            raise self._authenticator.refused(reason)

    def take(self, client: HandledClient, claims: Claims) -> dict[str, Any]:
        """Extend a connection; returns the result of the refresh."""
        connection = client.connection
        info = connection.info
        connection.refreshed(claims, expiry_clock.from_unix(claims.expires_at))
        if connection.info != info:
            self._on_info_changed(client)
        result: dict[str, Any] = {"client": connection.client, "version": __version__}
        add_expiry(result, claims.expires_at)
        return result

    async def subscription(self, client: HandledClient, channel: str, token: str) -> dict[str, Any]:
        """Extend a subscription; returns the result of the sub_refresh.

        Raises:
            ClientError: 100 if the token's key cannot be read now, 110 if its `expire_at` has passed, 103 if
                the subscription has ended meanwhile.
            Disconnect: 3006 for an expired token, 3500 for a bad token, or one for another channel, user or
                client.
        """
        connection = client.connection
        try:
            claims = await self._authenticator.subscription(
                token, channel, connection.user, connection.client, refreshes=True
            )
            expires_at = expiry_clock.from_unix(claims.expires_at)
            if not connection.sub_refreshed(channel, claims.info, expires_at):
                raise PERMISSION_DENIED.fresh()
        except (ClientError, Disconnect):
            self._counters.refresh_failures["subscription"] += 1
            raise
        if claims.info:
            self._on_info_changed(client, channel)
        result: dict[str, Any] = {}
        add_expiry(result, claims.expires_at)
        return result
