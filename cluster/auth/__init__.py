"""Who may connect and subscribe: from a token to its claims, or a refusal.

`authenticator` is what a worker asks; `token_keys` verifies signatures, `key_set` reads the keys of a
JSON Web Key Set, `claims` has what a token says.
"""

from __future__ import annotations

from cluster.auth.authenticator import ANONYMOUS, Authenticator
from cluster.auth.claims import (
    ChannelOverride,
    Claims,
    ServerSubscription,
    SubscriptionClaims,
    TokenRefused,
    channel_override,
    server_subscriptions,
)

__all__ = [
    "ANONYMOUS",
    "Authenticator",
    "ChannelOverride",
    "Claims",
    "ServerSubscription",
    "SubscriptionClaims",
    "TokenRefused",
    "channel_override",
    "server_subscriptions",
]
