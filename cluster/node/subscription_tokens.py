"""Subscription tokens: what one that was presented grants, and what the client gets with it.

A presented token alone decides: no other permission is consulted. Private channels need one.
"""

from __future__ import annotations

from typing import Any

import orjson

from cluster import expiry_clock
from cluster.auth import Authenticator, SubscriptionClaims
from cluster.connection import Connection, SubscriptionDetails
from cluster.protocol import SubscribeRequest


class SubscriptionTokens:
    """Verifies the tokens with which clients subscribe."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def granted_now(
        self, request: SubscribeRequest, connection: Connection
    ) -> SubscriptionClaims | None:
        """What `granted` returns, or None: then the token's key must be read, and `granted` is needed."""
        return self._authenticator.subscription_now(
            request.token, request.channel, connection.user, connection.client
        )

    async def granted(
        self, request: SubscribeRequest, connection: Connection
    ) -> SubscriptionClaims:
        """What the token of a subscribe grants; raises as `Authenticator.subscription` does."""
        return await self._authenticator.subscription(
            request.token, request.channel, connection.user, connection.client
        )


def add_token(
    result: dict[str, Any], claims: SubscriptionClaims, *, has_token: bool, asks_proxy: bool
) -> SubscriptionDetails | None:
    """Add to the result of a subscribe what its token says; returns what the subscription keeps of it.

    Args:
        has_token: whether the client has sent it; then the client refreshes it, and is told when,
            unless the server does so.
        asks_proxy: whether a proxy is asked when subscriptions of the channel expire.
    """
    if claims.data:
        result["data"] = orjson.Fragment(claims.data)
    by_server = asks_proxy or claims.is_refreshed_by_server
    if has_token and not by_server:
        add_expiry(result, claims.expires_at)
    if not (claims.info or claims.expires_at):
        return None
    expires_at = expiry_clock.from_unix(claims.expires_at)
    return SubscriptionDetails(claims.info, expires_at, is_refreshed_by_server=by_server)


def add_expiry(result: dict[str, Any], expires_at: int) -> None:
    """Add `expires` and `ttl`, in seconds, from 1 to those of a year; nothing for 0, which is never."""
    if expires_at:
        result["expires"] = True
        result["ttl"] = expiry_clock.seconds_left(expires_at)
