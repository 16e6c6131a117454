"""Public keys in PEM, as options have them: which are accepted, and why others are not.

The library is imported when there is a key to read: most commands and configurations need none.
"""

from __future__ import annotations

from typing import Any, Final

from cluster.config.model import TokenConfig

#: RFC 7518 §3.3 wants 2048 bits or more; a larger key than this costs a verification too much time.
RSA_BITS: Final = range(2048, 8192 + 1)

#: The algorithm of each curve (RFC 7518 §3.4), by its name in OpenSSL.
CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


def has_keys(options: TokenConfig) -> bool:
    """Whether any token can be verified."""
    return bool(
        options.hmac_secret_key
        or options.rsa_public_key
        or options.ecdsa_public_key
        or options.jwks_public_endpoint
        or options.jwks_file
    )


def public_key(pem: str, family: str) -> Any:
    """Load a key of the library `cryptography`.

    Args:
        family: RSA or EC.

    Raises:
        ValueError: and its text says what to give instead.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if "PRIVATE KEY" in pem:
        raise ValueError("give the public key; this is the private one, which no server needs")
    try:
        key = load_pem_public_key(pem.encode())
    except Exception:  # noqa: BLE001 - the library raises errors of several kinds for such text
        raise ValueError("give a public key in PEM (-----BEGIN PUBLIC KEY-----)") from None
    fault = fault_of(key, family)
    if fault:
        raise ValueError(fault)
    return key


def fault_of(key: Any, family: str) -> str:
    """What is wrong with a key for its family of algorithms, "" if nothing."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if family == "RSA":
        if not isinstance(key, rsa.RSAPublicKey):
            return "give a public key of RSA"
        if key.key_size not in RSA_BITS:
            return f"give an RSA key of {RSA_BITS[0]} to {RSA_BITS[-1]} bits; it has {key.key_size}"
    else:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return "give a public key of ECDSA"
        if key.curve.name not in CURVES:
            return "give a key on the curve P-256, P-384 or P-521"
    return ""
