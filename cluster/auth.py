"""Authentication: from a connection token to claims or a refusal.

- Tokens are JWTs signed with HS256, HS384 or HS512 and `client.token.hmac_secret_key`. PyJWT reads
  and verifies them; what the claims mean is decided here.
- A key verifies the algorithms of its own family only, so that a public key is never used as the
  secret of an HMAC (RFC 8725 §3.1).
- A key verifies an algorithm only if it is as long as the hash (RFC 7518 §3.2). Keys of less than 32
  bytes exist in insecure mode only, and verify all.
- Of members that repeat in a header or in claims the last one counts (RFC 7515 §4, RFC 7519 §4).
- With `client.insecure` a connection needs no token.

Source: RFC 7515, RFC 7519; Centrifugo's claims.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypedDict

import msgspec
from jwt import PyJWS
from jwt.algorithms import HMACAlgorithm
from jwt.exceptions import PyJWTError

from cluster import json_text
from cluster.config import Config
from cluster.errors import (
    BAD_REQUEST_CLOSE,
    INVALID_TOKEN,
    TOKEN_EXPIRED,
)

#: PyJWT examines each character before it verifies the signature: 16 KiB take it about 0.7 ms.
MAXIMUM_TOKEN_BYTES: Final = 16384

#: Times beyond this many seconds are refused: JSON's numbers are exact up to here (RFC 8259 §6).
_MAXIMUM_TIME: Final = 2**53

#: A connection expires after a year at the latest, as with Centrifugo: SDKs read its remaining seconds
#: as a number of 32 bits, and it is only asked for a new token then.
_MAXIMUM_SECONDS: Final = 365 * 24 * 3600


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
    """

    user: str
    info: bytes
    expires_at: int
    channels: tuple[str, ...] = ()
    subs: Mapping[str, ServerSubscription] = _NO_SUBS


_ANONYMOUS: Final = Claims("", b"", 0)


class _ClaimsObject(TypedDict, total=False):
    sub: str
    exp: int | float
    nbf: int | float
    iat: int | float
    channel: msgspec.Raw
    info: msgspec.Raw
    b64info: str


_CLAIMS: Final[json_text.JsonDecoder[dict[str, Any]]] = json_text.JsonDecoder(_ClaimsObject)


class _Key(NamedTuple):
    """A key that is ready for use, and the algorithms that it may verify."""

    value: bytes
    algorithms: tuple[str, ...]


class _PreparedHmac(HMACAlgorithm):
    """HMAC with a key that `_hmac_key` has checked: PyJWT would check it again for each token."""

    def prepare_key(self, key: str | bytes) -> bytes:
        assert isinstance(key, bytes)
        return key

    def check_key_length(self, key: bytes) -> str | None:
        return None


_HMACS: Final = {
    "HS256": _PreparedHmac(HMACAlgorithm.SHA256),
    "HS384": _PreparedHmac(HMACAlgorithm.SHA384),
    "HS512": _PreparedHmac(HMACAlgorithm.SHA512),
}


_KEY_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}


def _signatures() -> PyJWS:
    jws = PyJWS(algorithms=())
    for name, algorithm in _HMACS.items():
        jws.register_algorithm(name, algorithm)
    return jws


_JWS: Final = _signatures()


def authenticate(token: str, config: Config, now: float) -> Claims:
    """Return the claims of a connection's token.

    Args:
        now: Unix seconds.

    Raises:
        Disconnect: 3500 for a token that is malformed or not signed with our key, 3501 without one.
        ClientError: 109 for a token that has expired or is not yet valid.
    """
    client = config.client
    if not token:
        if client.insecure:
            return _ANONYMOUS
        raise BAD_REQUEST_CLOSE.fresh()
    if not client.token.hmac_secret_key:
        if client.insecure:
            return _ANONYMOUS
        raise INVALID_TOKEN.fresh()
    claims = _verified(token, client.token.hmac_secret_key)
    user = claims.get("sub", "")
    # A token with a channel is a subscription token.
    if type(user) is not str or "channel" in claims:
        raise INVALID_TOKEN.fresh()
    expires_at, not_before = _time(claims, "exp"), _time(claims, "nbf")
    _time(claims, "iat")
    if expires_at is not None and expires_at <= now:
        raise TOKEN_EXPIRED.fresh()
    if not_before is not None and not_before > now:
        raise TOKEN_EXPIRED.fresh()
    if client.insecure or expires_at is None:
        # Insecure mode accepts a connection without a token, so it ends none whose token expires.
        expires_at = 0
    return Claims(user, _info(claims), int(min(expires_at, now + _MAXIMUM_SECONDS)))


def _verified(token: str, secret: str) -> dict[str, Any]:
    """The claims of a token whose signature is right; their times are not compared yet."""
    # PyJWT accepts padding, RFC 7515 §2 does not.
    if len(token) > MAXIMUM_TOKEN_BYTES or not token.isascii() or "=" in token:
        raise INVALID_TOKEN.fresh()
    try:
        key = _hmac_key(secret)
        return _CLAIMS.decode(_JWS.decode(token, key.value, key.algorithms))
    except (PyJWTError, ValueError):
        raise INVALID_TOKEN.fresh() from None


def _info(claims: dict[str, Any]) -> bytes:
    """The JSON text of the claim `info`, or of `b64info`, which has precedence and is base64 of it."""
    try:
        if claims.get("b64info"):
            info = base64.b64decode(claims["b64info"], validate=True)
        else:
            info = bytes(claims.get("info", b""))
        # Checked here, once, and not with each publication that it goes into.
        return json_text.checked(info) if info not in {b"", b"null"} else b""
    except ValueError:
        raise INVALID_TOKEN.fresh() from None


@lru_cache(maxsize=8)
def _hmac_key(secret: str) -> _Key:
    """The key of a secret.

    Raises:
        InvalidKeyError: the secret is a public or private key, or a certificate.
    """
    value = HMACAlgorithm(hashlib.sha256).prepare_key(secret)
    algorithms = tuple(name for name, least in _KEY_BYTES.items() if len(value) >= least)
    return _Key(value, algorithms or tuple(_HMACS))


def _time(claims: dict[str, Any], name: str) -> float | None:
    """A NumericDate, which may have a fraction (RFC 7519 §2); None if there is none."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) not in (int, float) or not -_MAXIMUM_TIME <= value <= _MAXIMUM_TIME:
        raise INVALID_TOKEN.fresh()
    return float(value)
