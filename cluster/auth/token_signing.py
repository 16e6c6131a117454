"""Signs tokens, for commands and scripts; a worker only verifies them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import jwt
from jwt.exceptions import PyJWTError

from cluster.auth.token_keys import algorithms_of, hmac_key
from cluster.config import TokenConfig
from cluster.errors import UsageError

ALGORITHMS: Final = (
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
    "ES384", "ES512", "EdDSA",
)  # fmt: skip


class SigningKey(NamedTuple):
    """A key, and the algorithm that it signs with."""

    value: Any
    algorithm: str


def signing_key(options: TokenConfig, private_key: str | None, algorithm: str | None) -> SigningKey:
    """The key of a file, or else the secret of the configuration.

    Args:
        private_key: a file with a key in PEM, None for none.
        algorithm: None for the first that the key has.

    Raises:
        UsageError: there is no such key, or it is not one of the algorithm.
    """
    if private_key is not None:
        value, has = _private_key(private_key)
    elif options.hmac_secret_key:
        value, has = hmac_key(options.hmac_secret_key)
    else:
        raise UsageError(
            "the configuration has no secret to sign with, only keys that verify: give the private key"
            " with --private-key FILE"
        )
    if algorithm is None:
        return SigningKey(value, has[0])
    if algorithm not in has:
        raise UsageError(
            f"--algorithm: the key is not fit for {algorithm}; it signs {', '.join(has)}"
        )
    return SigningKey(value, algorithm)


def signed(payload: bytes, key: SigningKey, key_id: str | None) -> str:
    """Sign claims, as JSON text."""
    headers = {"kid": key_id} if key_id is not None else None
    return jwt.PyJWS().encode(payload, key.value, algorithm=key.algorithm, headers=headers)


def _private_key(path: str) -> tuple[Any, tuple[str, ...]]:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(Path(path).read_bytes(), password=None)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, PyJWTError):
        raise UsageError(f"{path} has no private key in PEM without a password") from None
    families = {
        rsa.RSAPrivateKey: "RSA", ec.EllipticCurvePrivateKey: "EC", ed25519.Ed25519PrivateKey: "OKP",
    }  # fmt: skip
    for kind, family in families.items():
        if isinstance(key, kind):
            has = algorithms_of(key.public_key(), family)
            if has:
                return key, has
    raise UsageError(
        f"{path}: give a key of RSA with 2048 bits or more, of ECDSA on P-256, P-384 or P-521, or Ed25519"
    )
