"""Authentication: from a token to its claims, or to the answer that the client gets.

- Tokens are JWTs. `token_keys` verifies their signatures, `claims` reads what they say, and what becomes of
  a token that is not accepted is decided here, and counted by its reason.
- With `client.insecure` a connection needs no token, and none expires. With
  `client.allow_anonymous_connect_without_token` it needs none, too, and may do what namespaces allow to
  anonymous users; a token that it has must be right.
- Subscription tokens have keys of their own if `client.subscription_token.enabled` says so. In every mode a
  subscription token decides, so it must be right.

Source: RFC 7515, RFC 7519; Centrifugo's claims.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from cluster.auth.claims import (
    AudienceCheck,
    Claims,
    NamedKeyMissing,
    SubscriptionClaims,
    TokenRefused,
    connection_claims,
    subscription_claims,
)
from cluster.config import Config, TokenConfig
from cluster.config.public_keys import has_keys
from cluster.errors import (
    BAD_REQUEST_CLOSE,
    CONNECTION_EXPIRED,
    EXPIRED,
    INTERNAL,
    INVALID_TOKEN,
    PERMISSION_DENIED,
    PERMISSION_DENIED_CLOSE,
    SUBSCRIPTION_EXPIRED,
    TOKEN_EXPIRED,
    ClientError,
    Disconnect,
)
from cluster.metrics.counters import Counters

if TYPE_CHECKING:
    from cluster.auth.key_set import KeySet
    from cluster.auth.token_keys import SignatureVerifier

#: The claims of a connection without a token.
ANONYMOUS: Final = Claims("", b"", 0, has_token=False)

#: The answer to a token by the reason of its refusal; "" is the answer for all others.
Answers = Mapping[str, ClientError | Disconnect]

_CONNECT: Final[Answers] = {
    "": INVALID_TOKEN,
    "expired": TOKEN_EXPIRED,
    "not_yet_valid": TOKEN_EXPIRED,
    "ended": EXPIRED,
    "keys_unavailable": INTERNAL,
    "anonymous": PERMISSION_DENIED_CLOSE,
    "blocked": PERMISSION_DENIED_CLOSE,
}
_REFRESH: Final[Answers] = {
    **_CONNECT,
    "expired": CONNECTION_EXPIRED,
    "not_yet_valid": CONNECTION_EXPIRED,
}
_SUBSCRIBE: Final[Answers] = {
    "": PERMISSION_DENIED,
    "expired": TOKEN_EXPIRED,
    "not_yet_valid": TOKEN_EXPIRED,
    "ended": EXPIRED,
    "keys_unavailable": INTERNAL,
    "foreign": INVALID_TOKEN,
    "no_channel": INVALID_TOKEN,
}
_SUB_REFRESH: Final[Answers] = {
    **_SUBSCRIBE,
    "": INVALID_TOKEN,
    "expired": SUBSCRIPTION_EXPIRED,
    "not_yet_valid": SUBSCRIPTION_EXPIRED,
}


class _Verifier:
    """Verifies the tokens of one kind.

    Attributes:
        signatures: None without any key. The libraries of signatures are imported with the first key only:
            they take a worker 25 ms of its start (`python -X importtime`).
    """

    def __init__(self, options: TokenConfig, counters: Counters) -> None:
        self.check = AudienceCheck(options.audience, options.issuer)
        self.key_set: KeySet | None = None
        self.signatures: SignatureVerifier | None = None
        if has_keys(options) or options.hmac_previous_secret_key:
            from cluster.auth.key_set import KeySet
            from cluster.auth.token_keys import SignatureVerifier

            self.key_set = KeySet.of(options, counters)
            named = self.key_set.get if self.key_set is not None else None
            self.signatures = SignatureVerifier(options, named)

    async def find(self, missing: NamedKeyMissing) -> None:
        assert self.key_set is not None, "only a key set has keys with names"
        await self.key_set.find(missing.name)


class Authenticator:
    """Verifies the tokens of one worker's clients.

    Args:
        clock: Unix seconds.
    """

    def __init__(
        self, config: Config, counters: Counters, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._options = config.client
        self._counters = counters
        self._connections = _Verifier(config.client.token, counters)
        self._subscriptions = self._connections
        if config.client.subscription_token.enabled:
            self._subscriptions = _Verifier(config.client.subscription_token, counters)

    @property
    def refusals(self) -> dict[str, int]:
        """How many tokens were not accepted, by reason."""
        return self._counters.tokens_refused

    # --- connections ---------------------------------------------------------------------------

    async def connection(self, token: str) -> Claims:
        """The claims of the token of a connect; without one, if that is allowed, those of anonymous.

        Raises:
            Disconnect, ClientError: as `verified` does.
        """
        if not token and self._options.allow_anonymous_connect_without_token:
            return ANONYMOUS
        return await self.verified(token)

    async def verified(self, token: str) -> Claims:
        """The claims of the token of a connect; without one, in insecure mode only, those of anonymous.

        Raises:
            Disconnect: 3500 for a token that is not valid, 3501 without one, 3507 for an anonymous one where
                that is not allowed.
            ClientError: 109 for a token that has expired or is not yet valid, 110 if its `expire_at` has
                passed, 100 if its key cannot be read now.
        """
        if not token:
            if self._options.insecure:
                return ANONYMOUS
            raise BAD_REQUEST_CLOSE.fresh()
        if self._options.insecure and self._connections.signatures is None:
            return ANONYMOUS
        return await self._connection(token, _CONNECT)

    async def refreshed(self, token: str, user: str) -> Claims:
        """The claims of the token with which a connection of this user is refreshed.

        Raises:
            Disconnect, ClientError: as `connection`, but 3005 for a token that has expired, and 3500 for
                one of another user.
        """
        claims = await self._connection(token, _REFRESH)
        if claims.user != user:
            raise self._refused("foreign", _REFRESH)
        return claims

    def refused(self, reason: str) -> ClientError | Disconnect:
        """Count that a right token of a connect or refresh is not accepted; returns the answer."""
        return self._refused(reason, _CONNECT)

    async def _connection(self, token: str, answers: Answers) -> Claims:
        verifier = self._connections
        try:
            try:
                claims = self._read_connection(token)
            except NamedKeyMissing as missing:
                await verifier.find(missing)
                claims = self._read_connection(token)
        except (TokenRefused, NamedKeyMissing) as refused:
            raise self._refused(_reason(refused), answers) from None
        # Insecure mode accepts a connection without a token, so it ends none whose token expires.
        return claims._replace(expires_at=0) if self._options.insecure else claims

    def _read_connection(self, token: str) -> Claims:
        verifier, now = self._connections, self._clock()
        if verifier.signatures is None:
            raise TokenRefused("no_keys")
        payload = verifier.signatures.payload(token, now)
        claims = connection_claims(payload, now, verifier.check)
        if not claims.user and self._options.disallow_anonymous_connection_tokens:
            raise TokenRefused("anonymous")
        return claims

    # --- subscriptions -------------------------------------------------------------------------

    def subscription_now(
        self, token: str, channel: str, user: str, client: str
    ) -> SubscriptionClaims | None:
        """What `subscription` returns, or None: then its key must be read, and `subscription` is needed."""
        try:
            return self._read_subscription(token, channel, user, client)
        except NamedKeyMissing:
            return None
        except TokenRefused as refused:
            raise self._refused(refused.reason, _SUBSCRIBE) from None

    async def subscription(
        self, token: str, channel: str, user: str, client: str, *, refreshes: bool = False
    ) -> SubscriptionClaims:
        """The claims of the token with which this client subscribes to the channel.

        Args:
            refreshes: whether the client is subscribed, and refreshes the subscription.

        Raises:
            ClientError: 103 for a token that is not valid, 109 if it has expired, 110 if its `expire_at`
                has passed, 100 if its key cannot be read now.
            Disconnect: 3500 for a token for another channel, user or client. For a refresh 3500 also for one
                that is not valid, and 3006 for one that has expired.
        """
        answers = _SUB_REFRESH if refreshes else _SUBSCRIBE
        try:
            try:
                return self._read_subscription(token, channel, user, client)
            except NamedKeyMissing as missing:
                await self._subscriptions.find(missing)
                return self._read_subscription(token, channel, user, client)
        except (TokenRefused, NamedKeyMissing) as refused:
            raise self._refused(_reason(refused), answers) from None

    async def any_subscription(self, token: str) -> SubscriptionClaims:
        """The claims of a subscription token, whichever channel, user and client it is for.

        Raises:
            ClientError, Disconnect: as `subscription` does.
        """
        try:
            try:
                return self._subscription_claims(token)
            except NamedKeyMissing as missing:
                await self._subscriptions.find(missing)
                return self._subscription_claims(token)
        except (TokenRefused, NamedKeyMissing) as refused:
            raise self._refused(_reason(refused), _SUBSCRIBE) from None

    def _read_subscription(
        self, token: str, channel: str, user: str, client: str
    ) -> SubscriptionClaims:
        claims = self._subscription_claims(token)
        if claims.channel != channel or claims.user != user or claims.client not in {"", client}:
            raise TokenRefused("foreign")
        return claims

    def _subscription_claims(self, token: str) -> SubscriptionClaims:
        verifier, now = self._subscriptions, self._clock()
        if verifier.signatures is None:
            raise TokenRefused("no_keys")
        payload = verifier.signatures.payload(token, now)
        return subscription_claims(payload, now, verifier.check)

    # --- refusals ------------------------------------------------------------------------------

    def _refused(self, reason: str, answers: Answers) -> ClientError | Disconnect:
        self._counters.tokens_refused[reason] += 1
        return answers.get(reason, answers[""]).fresh()


def _reason(refused: TokenRefused | NamedKeyMissing) -> str:
    return refused.reason if isinstance(refused, TokenRefused) else "unknown_key"
