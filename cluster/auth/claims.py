"""What tokens say: the claims of connection tokens and of subscription tokens (RFC 7519, Centrifugo's).

A token is verified before it comes here. Of claims that repeat the last one counts (RFC 7519 §4). JSON
of an application (`info`, `data`, `meta`) is checked here once, and passed on as text.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypedDict

import msgspec

from cluster import data_url, expiry_clock, json_text
from cluster.errors import ClusterError

#: Times beyond this many seconds are refused: JSON's numbers are exact up to here (RFC 8259 §6).
_MAXIMUM_TIME: Final = 2**53


class TokenRefused(ClusterError):
    """A token is not accepted.

    Attributes:
        reason: one of `metrics.catalogue.TOKEN_REFUSALS`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason: Final = reason


class NamedKeyMissing(Exception):
    """The token names a key that is not known yet: `KeySet.find` may find it.

    Attributes:
        name: the `kid` of the token.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name: Final = name


class ChannelOverride(NamedTuple):
    """Options of a channel that are different for one subscription; None leaves them as they are."""

    presence: bool | None = None
    join_leave: bool | None = None
    force_push_join_leave: bool | None = None
    force_recovery: bool | None = None
    force_positioning: bool | None = None


class ServerSubscription(NamedTuple):
    """What a connection token says about a channel that the server subscribes the connection to.

    Attributes:
        info: JSON text that others see as `chan_info`, b"" if there is none.
        data: JSON text for the client, with the subscription; b"" if there is none.
    """

    info: bytes = b""
    data: bytes = b""
    override: ChannelOverride | None = None


_NO_SUBS: Final[Mapping[str, ServerSubscription]] = MappingProxyType({})


class Claims(NamedTuple):
    """What a token says about a connection's user.

    Attributes:
        user: "" is anonymous.
        info: JSON text that others see as `conn_info`, b"" if there is none.
        expires_at: Unix seconds, 0 for never.
        channels: what the server subscribes the connection to; empty if there are `subs`.
        subs: the same with options, by channel.
        meta: JSON text of an object for the application, which no client sees; b"" if there is none.
        token_id: the claim `jti`, "" if there is none.
        issued_at: the claim `iat` in Unix seconds, 0 if there is none.
        is_refreshed_by_server: whether the application is asked when it expires, and not the client.
        has_token: whether a token says so; False if the user is anonymous, or the application's word.
    """

    user: str
    info: bytes
    expires_at: int
    channels: tuple[str, ...] = ()
    subs: Mapping[str, ServerSubscription] = _NO_SUBS
    meta: bytes = b""
    token_id: str = ""
    issued_at: float = 0.0
    is_refreshed_by_server: bool = False
    has_token: bool = True

    @property
    def server_side(self) -> tuple[str, ...]:
        """The channels that the token subscribes the connection to."""
        return tuple(self.subs) or self.channels


class SubscriptionClaims(NamedTuple):
    """What a token says about one subscription of a client.

    Attributes:
        client: the id of the only connection that may use it, "" for any.
        info, data, override: as in `ServerSubscription`.
        expires_at: Unix seconds, 0 for never.
        is_refreshed_by_server: whether the application is asked then if it may go on.
    """

    channel: str
    user: str
    client: str
    info: bytes
    data: bytes
    override: ChannelOverride | None
    expires_at: int
    is_refreshed_by_server: bool = False


# --- the shapes ----------------------------------------------------------------------------


class _Value(msgspec.Struct, gc=False):
    value: bool = False


class _Override(msgspec.Struct, gc=False):
    presence: _Value | None = None
    join_leave: _Value | None = None
    force_push_join_leave: _Value | None = None
    force_recovery: _Value | None = None
    force_positioning: _Value | None = None


class _Texts(TypedDict, total=False):
    info: msgspec.Raw
    b64info: str | None


class _SubscriptionTexts(_Texts, total=False):
    data: msgspec.Raw
    b64data: str | None
    override: _Override | None


class _Registered(TypedDict, total=False):
    """Claims of RFC 7519; `aud` is a string or a list of them."""

    sub: str
    exp: int | float
    nbf: int | float
    iat: int | float
    jti: str | None
    iss: str | None
    aud: str | list[str] | None
    expire_at: int | float | None


class _ConnectionObject(_Registered, _Texts, total=False):
    channel: msgspec.Raw
    channels: list[str] | None
    subs: dict[str, _SubscriptionTexts] | None
    meta: msgspec.Raw


class _SubscriptionObject(_Registered, _SubscriptionTexts, total=False):
    channel: str | None
    client: str | None


_CONNECTION: Final[json_text.JsonDecoder[dict[str, Any]]] = json_text.JsonDecoder(_ConnectionObject)
_SUBSCRIPTION: Final[json_text.JsonDecoder[dict[str, Any]]] = json_text.JsonDecoder(
    _SubscriptionObject
)


class AudienceCheck:
    """Whom a token must be for, and who must have issued it; "" allows any."""

    def __init__(self, audience: str, issuer: str) -> None:
        self._audience = audience
        self._issuer = issuer

    def demand(self, claims: Mapping[str, Any]) -> None:
        """Raises `TokenRefused` for a token of another audience or issuer."""
        if self._audience:
            given = claims.get("aud") or ()
            audiences: Collection[str] = (given,) if type(given) is str else given
            if self._audience not in audiences:
                raise TokenRefused("audience")
        if self._issuer and claims.get("iss") != self._issuer:
            raise TokenRefused("issuer")


# --- reading -------------------------------------------------------------------------------


def connection_claims(payload: bytes, now: float, check: AudienceCheck) -> Claims:
    """Read the payload of a connection token whose signature is right.

    Raises:
        TokenRefused: see there.
    """
    claims = _decoded(_CONNECTION, payload)
    if "channel" in claims:
        raise TokenRefused("kind")
    user = claims.get("sub", "")
    check.demand(claims)
    expires_at = _expiry(claims, now)
    subs = _subscriptions(claims.get("subs") or {})
    return Claims(
        user,
        _text(claims, "info"),
        expires_at,
        () if subs else tuple(dict.fromkeys(claims.get("channels") or ())),
        MappingProxyType(subs) if subs else _NO_SUBS,
        _object_text(bytes(claims.get("meta", b""))),
        claims.get("jti") or "",
        float(claims.get("iat", 0.0)),
    )


def _subscriptions(given: Mapping[str, Any]) -> dict[str, ServerSubscription]:
    return {
        channel: ServerSubscription(
            _text(one, "info"), _text(one, "data"), _override(one.get("override"))
        )
        for channel, one in given.items()
    }


_SUBS: Final[json_text.JsonDecoder[dict[str, Any]]] = json_text.JsonDecoder(
    dict[str, _SubscriptionTexts]
)


def server_subscriptions(text: bytes) -> dict[str, ServerSubscription]:
    """Read `subs` as a backend sends them: an object of options by channel, as in a token.

    Raises:
        TokenRefused: "malformed", it has another form.
    """
    return _subscriptions(_decoded(_SUBS, text))


def subscription_claims(payload: bytes, now: float, check: AudienceCheck) -> SubscriptionClaims:
    """Read the payload of a subscription token whose signature is right.

    Raises:
        TokenRefused: see there.
    """
    claims = _decoded(_SUBSCRIPTION, payload)
    check.demand(claims)
    channel = claims.get("channel")
    if not channel:
        raise TokenRefused("no_channel")
    return SubscriptionClaims(
        channel,
        claims.get("sub", ""),
        claims.get("client") or "",
        _text(claims, "info"),
        _text(claims, "data"),
        _override(claims.get("override")),
        _expiry(claims, now),
    )


def _decoded(decoder: json_text.JsonDecoder[dict[str, Any]], payload: bytes) -> dict[str, Any]:
    try:
        return decoder.decode(payload)
    except json_text.JsonTextInvalid:
        raise TokenRefused("malformed") from None


def _expiry(claims: Mapping[str, Any], now: float) -> int:
    """When what the token allows ends, 0 for never."""
    ends, not_before = _time(claims, "exp"), _time(claims, "nbf")
    _time(claims, "iat")
    if ends is not None and ends <= now:
        raise TokenRefused("expired")
    if not_before is not None and not_before > now:
        raise TokenRefused("not_yet_valid")
    if claims.get("expire_at") is not None:
        ends = _time(claims, "expire_at") or None
        if ends is not None and ends <= now:
            raise TokenRefused("ended")
    return expiry_clock.bounded(ends, now) if ends is not None else 0


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate, which may have a fraction (RFC 7519 §2); None if there is none."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) not in (int, float) or not -_MAXIMUM_TIME <= value <= _MAXIMUM_TIME:
        raise TokenRefused("malformed")
    return float(value)


def _text(claims: Mapping[str, Any], name: str) -> bytes:
    """The JSON text of a claim, or of its `b64…`, which has precedence and is base64 of any bytes."""
    encoded = claims.get(f"b64{name}")
    try:
        if encoded:
            return data_url.of_base64(encoded)
        text = bytes(claims.get(name, b""))
        # Checked here, once, and not with each publication that it goes into.
        return json_text.checked(text) if text not in {b"", b"null"} else b""
    except ValueError:
        raise TokenRefused("malformed") from None


def _object_text(text: bytes) -> bytes:
    if text in {b"", b"null"}:
        return b""
    if not text.startswith(b"{") or json_text.is_too_deep(text):
        raise TokenRefused("malformed")
    return text


def channel_override(given: Mapping[str, Any]) -> ChannelOverride | None:
    """Read what a backend sends as `override`: an object `{"value": …}` by option; others are ignored.

    Raises:
        ValueError: an option has another form.
    """
    try:
        return _override(msgspec.convert(given, _Override))
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def _override(given: _Override | None) -> ChannelOverride | None:
    if given is None:
        return None
    values = (getattr(given, name) for name in ChannelOverride._fields)
    found = ChannelOverride(*(None if one is None else one.value for one in values))
    return found if found != ChannelOverride() else None
