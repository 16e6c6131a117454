"""Who may come in: a token in, claims or a reason out.

Tokens are JWTs signed with HS256, HS384 or HS512 and `client.token.hmac_secret_key`. With
`client.insecure` a connection needs no token. (Subscription tokens and asymmetric keys have their
place here.)

Source: RFC 7519; Centrifugo's claims.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Any, Final, NamedTuple

import orjson

from cluster.config import Config
from cluster.errors import (
    BAD_REQUEST_CLOSE,
    INVALID_TOKEN,
    TOKEN_EXPIRED,
)

_HASHES: Final = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


class Claims(NamedTuple):
    """What is known of a connection's user.

    Attributes:
        user: "" is anonymous.
        info: JSON that others see as `conn_info`, None when there is none.
        expires_at: Unix seconds, 0 for never.
    """

    user: str
    info: Any
    expires_at: int


_ANONYMOUS: Final = Claims("", None, 0)


def authenticate(token: str, config: Config, now: float) -> Claims:
    """Say who a connection belongs to.

    Raises:
        Disconnect: 3500 for a token that is malformed or not signed with our key, 3501 without one.
        ClientError: 109 for a token that has expired or does not hold yet.
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
    claims = _verify(token, client.token.hmac_secret_key.encode())
    user, expires_at = claims.get("sub", ""), claims.get("exp", 0)
    if type(user) is not str or type(expires_at) is not int or "channel" in claims:
        raise INVALID_TOKEN.fresh()
    not_before = claims.get("nbf", 0)
    if type(not_before) is not int:
        raise INVALID_TOKEN.fresh()
    if (expires_at and expires_at <= now) or not_before > now:
        raise TOKEN_EXPIRED.fresh()
    # Insecure mode lets everybody in, so nobody's time runs out either.
    return Claims(user, claims.get("info"), 0 if client.insecure else expires_at)


def _verify(token: str, key: bytes) -> dict[str, Any]:
    try:
        signed, _, signature = token.rpartition(".")
        header, _, body = signed.partition(".")
        algorithm = _HASHES[orjson.loads(_decoded(header))["alg"]]
        claims = orjson.loads(_decoded(body))
        given = _decoded(signature)
    except (ValueError, KeyError, TypeError):
        raise INVALID_TOKEN.fresh() from None
    expected = hmac.new(key, signed.encode(), algorithm).digest()
    if not hmac.compare_digest(expected, given) or type(claims) is not dict:
        raise INVALID_TOKEN.fresh()
    return claims


def _decoded(part: str) -> bytes:
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
