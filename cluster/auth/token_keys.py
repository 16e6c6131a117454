"""Verifies the signatures of tokens: which key may verify which algorithm.

- A key verifies the algorithms of its own family only, so that a public key is never used as the
  secret of an HMAC (RFC 8725 §3.1).
- A key verifies an algorithm only if it is as long as that wants (RFC 7518 §3.2 to §3.4). HMAC keys of less
  than 32 bytes exist in insecure mode only, and verify all of them.
- A token that names a key (`kid`) is verified by the key set, if there is one; other tokens by the options' keys.
- Of members that repeat in a header the last one counts (RFC 7515 §4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from jwt import PyJWS
from jwt.algorithms import HMACAlgorithm
from jwt.exceptions import (
    InvalidAlgorithmError,
    InvalidKeyError,
    InvalidSignatureError,
    PyJWTError,
)

from cluster.auth.claims import NamedKeyMissing, TokenRefused
from cluster.config import TokenConfig
from cluster.config.public_keys import CURVES, fault_of, public_key

#: PyJWT examines each character before it verifies the signature: 16 KiB take it about 0.7 ms.
MAXIMUM_TOKEN_BYTES: Final = 16384

_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_ASYMMETRIC: Final = (*_RSA, "ES256", "ES384", "ES512", "EdDSA")


class VerificationKey(NamedTuple):
    """A key that is ready for use, and the algorithms that it may verify."""

    value: Any
    algorithms: tuple[str, ...]


class _PreparedHmac(HMACAlgorithm):
    """HMAC with a key that `hmac_key` has checked: PyJWT would check it again for each token."""

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
    jws = PyJWS(algorithms=_ASYMMETRIC)
    for name, algorithm in _HMACS.items():
        jws.register_algorithm(name, algorithm)
    return jws


_JWS: Final = _signatures()


def hmac_key(secret: str) -> VerificationKey:
    """The key of a secret.

    Raises:
        InvalidKeyError: the secret is a public or private key, or a certificate.
    """
    value = HMACAlgorithm(hashlib.sha256).prepare_key(secret)
    algorithms = tuple(name for name, least in _KEY_BYTES.items() if len(value) >= least)
    return VerificationKey(value, algorithms or tuple(_HMACS))


def algorithms_of(key: Any, family: str) -> tuple[str, ...]:
    """The algorithms that a public key may verify, none if it is not fit for its family.

    Args:
        family: RSA, EC or OKP, as a JSON Web Key says.
    """
    if family == "OKP":
        from cryptography.hazmat.primitives.asymmetric import ed25519

        return ("EdDSA",) if isinstance(key, ed25519.Ed25519PublicKey) else ()
    if fault_of(key, family):
        return ()
    return _RSA if family == "RSA" else (CURVES[key.curve.name],)


#: Finds the keys of a `kid`; there may be none.
NamedKeys = Callable[[str], Iterable[VerificationKey]]


class SignatureVerifier:
    """The keys of one section of the configuration.

    Args:
        named_keys: the keys of a key set, by `kid`; None without a key set.
    """

    def __init__(self, options: TokenConfig, named_keys: NamedKeys | None = None) -> None:
        self._named_keys = named_keys
        self._hmac_keys: tuple[VerificationKey, ...] = ()
        self._previous: VerificationKey | None = None
        self._previous_until = options.hmac_previous_secret_key_valid_until
        self._public: tuple[VerificationKey, ...] = ()
        try:
            if options.hmac_secret_key:
                self._hmac_keys = (hmac_key(options.hmac_secret_key),)
            if options.hmac_previous_secret_key:
                self._previous = hmac_key(options.hmac_previous_secret_key)
        except InvalidKeyError:
            # The configuration is refused with such a key; if it comes in another way, nothing is accepted.
            self._hmac_keys = ()
        for text, family in ((options.rsa_public_key, "RSA"), (options.ecdsa_public_key, "EC")):
            if text:
                key = public_key(text, family)
                self._public += (VerificationKey(key, algorithms_of(key, family)),)

    def payload(self, token: str, now: float) -> bytes:
        """The claims of a token whose signature is right, as JSON text.

        Args:
            now: Unix seconds.

        Raises:
            TokenRefused: see there.
            NamedKeyMissing: it must be asked for.
        """
        # PyJWT accepts padding, RFC 7515 §2 does not.
        if len(token) > MAXIMUM_TOKEN_BYTES or not token.isascii() or "=" in token:
            raise TokenRefused("malformed")
        try:
            return self._verified(token, now)
        except InvalidSignatureError:
            raise TokenRefused("signature") from None
        except (InvalidAlgorithmError, InvalidKeyError):
            raise TokenRefused("algorithm") from None
        except (PyJWTError, ValueError, TypeError):
            raise TokenRefused("malformed") from None

    def _verified(self, token: str, now: float) -> bytes:
        if not self._public and self._named_keys is None:
            return self._verified_hmac(token, now)
        header = _JWS.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm in _HMACS:
            return self._verified_hmac(token, now)
        name, keys = header.get("kid"), self._public
        if name is not None and self._named_keys is not None:
            keys = tuple(self._named_keys(name))
            if not keys:
                raise NamedKeyMissing(name)
        for key in keys:
            if algorithm in key.algorithms:
                payload: bytes = _JWS.decode(token, key.value, key.algorithms)
                return payload
        raise InvalidAlgorithmError

    def _verified_hmac(self, token: str, now: float) -> bytes:
        previous = self._previous
        if previous is not None and 0 < self._previous_until <= now:
            previous = None
        payload: bytes
        for key in self._hmac_keys:
            try:
                payload = _JWS.decode(token, key.value, key.algorithms)
                return payload
            except (InvalidSignatureError, InvalidAlgorithmError):
                if previous is None:
                    raise
        if previous is None:
            raise InvalidAlgorithmError
        payload = _JWS.decode(token, previous.value, previous.algorithms)
        return payload
