"""Keys and tokens of every algorithm, for tests."""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVES: dict[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1(),
}  # fmt: skip
ASYMMETRIC = (*RSA, *CURVES, "EdDSA")


@cache
def rsa_key(bits: int = 2048, number: int = 0) -> rsa.RSAPrivateKey:
    """A key, the same each time; `number` tells keys of one size apart."""
    return rsa.generate_private_key(65537, bits)


@cache
def private_key(algorithm: str) -> Any:
    """The key that signs an algorithm in these tests."""
    if algorithm in RSA:
        return rsa_key()
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm])
    return ed25519.Ed25519PrivateKey.generate()


def public_pem(key: Any) -> str:
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def private_pem(key: Any) -> bytes:
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


def made(algorithm: str, key: Any, *, kid: str | None = None, **claims: Any) -> str:
    headers = {"kid": kid} if kid is not None else None
    return jwt.PyJWS().encode(orjson.dumps(claims), key, algorithm=algorithm, headers=headers)


def _number(value: int, size: int = 0) -> str:
    data = value.to_bytes(size or (value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk(key: Any, kid: str, **more: Any) -> dict[str, Any]:
    """The public part of a key as a JSON Web Key."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        parts = {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
    elif isinstance(public, ec.EllipticCurvePublicKey):
        point, size = public.public_numbers(), (public.curve.key_size + 7) // 8
        name = {256: "P-256", 384: "P-384", 521: "P-521"}[public.curve.key_size]
        parts = {
            "kty": "EC", "crv": name, "x": _number(point.x, size), "y": _number(point.y, size),
        }  # fmt: skip
    else:
        raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        parts = {"kty": "OKP", "crv": "Ed25519", "x": x}
    return {**parts, "kid": kid, **more}


def jwks(*keys: dict[str, Any]) -> bytes:
    return orjson.dumps({"keys": keys})
