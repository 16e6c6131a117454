"""The public keys of a JSON Web Key Set (RFC 7517), from a URL or a file, kept and read again when needed.

- It is read when a token names a key that is not known, and behind the back of clients when it is an hour
  old. One read serves all who wait for it. Until a while after it, longer after each failure, nothing is
  read: a flood of tokens with unknown keys costs one read in that time, and is answered with error 100.
- What is read is bounded: bytes, keys, time; redirects are not followed, compressed answers not accepted.
- While the set cannot be read, its last keys are used for a day.
- Only public parts of keys are taken, and keys that are for signatures. Others are ignored (§5), and counted
  in the log.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError
from yarl import URL

from cluster.auth.claims import TokenRefused
from cluster.auth.token_keys import VerificationKey, algorithms_of
from cluster.config import TokenConfig
from cluster.log import get_logger
from cluster.metrics.counters import Counters

log = get_logger()

#: Of a set that is larger, or has more keys, none is used.
MAXIMUM_BYTES: Final = 262_144
MAXIMUM_KEYS: Final = 100

_TIMEOUT_SECONDS: Final = 5.0
#: No read follows another sooner, so a new key is known this long after it was published at the latest.
LEAST_INTERVAL_SECONDS: Final = 10.0
_BACKOFF_SECONDS: Final = 1.0
_BACKOFF_LIMIT_SECONDS: Final = 60.0
_REREAD_SECONDS: Final = 3600.0
_KEPT_SECONDS: Final = 86_400.0

Keys = dict[str, tuple[VerificationKey, ...]]
Source = Callable[[], Awaitable[bytes]]


class _Jwk(msgspec.Struct, gc=False):
    kty: str
    kid: str
    alg: str | None = None
    use: str | None = None
    key_ops: list[str] | None = None
    n: str | None = None
    e: str | None = None
    crv: str | None = None
    x: str | None = None
    y: str | None = None


class _Jwks(msgspec.Struct, gc=False):
    keys: list[msgspec.Raw]


_JWK: Final = msgspec.json.Decoder(_Jwk)
_JWKS: Final = msgspec.json.Decoder(_Jwks)


def parsed(text: bytes) -> tuple[Keys, int]:
    """The keys of a set by their id, and how many were ignored.

    Raises:
        ValueError: and its text says what is wrong with the set.
    """
    try:
        given = _JWKS.decode(text).keys
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"it is no JSON Web Key Set: {error}") from None
    if len(given) > MAXIMUM_KEYS:
        raise ValueError(f"it has {len(given)} keys; {MAXIMUM_KEYS} are allowed")
    keys: Keys = {}
    ignored = 0
    for one in given:
        try:
            jwk = _JWK.decode(one)
            key = _verification_key(jwk)
        except (msgspec.DecodeError, RecursionError, PyJWTError, ValueError, TypeError):
            ignored += 1
            continue
        keys[jwk.kid] = (*keys.get(jwk.kid, ()), key)
    if not keys:
        raise ValueError("it has no key that could verify a token")
    return keys, ignored


def _verification_key(jwk: _Jwk) -> VerificationKey:
    if jwk.use not in (None, "sig") or "verify" not in (jwk.key_ops or ["verify"]):
        raise ValueError("not for signatures")
    public: dict[str, Any] = {
        name: value for name in ("kty", "n", "e", "crv", "x", "y") if (value := getattr(jwk, name))
    }
    key: Any
    if jwk.kty == "RSA":
        key = RSAAlgorithm.from_jwk(public)
    elif jwk.kty == "EC":
        key = ECAlgorithm.from_jwk(public)
    else:
        key = OKPAlgorithm.from_jwk(public)
    algorithms = algorithms_of(key, jwk.kty)
    if jwk.alg is not None:
        algorithms = tuple(name for name in algorithms if name == jwk.alg)
    if not algorithms:
        raise ValueError("no algorithm")
    return VerificationKey(key, algorithms)


class KeySet:
    """One set; `get` is for every token, `find` for a key that it does not have.

    Args:
        name: what logs call it.
        source: reads the text; raises `OSError`, `aiohttp.ClientError`, `TimeoutError` or `ValueError`.
        clock: seconds, without steps.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        counters: Counters,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._name = name
        self._source = source
        self._counters = counters
        self._keys: Keys = {}
        self._read_at = float("-inf")
        self._next_at = float("-inf")
        self._failures = 0
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, options: TokenConfig, counters: Counters) -> KeySet | None:
        """The set that the options name, None if they name none."""
        if options.jwks_public_endpoint:
            url = URL(options.jwks_public_endpoint)
            shown = str(url.with_user(None).with_query(None))
            return cls(shown, lambda: _fetched(url), counters)
        if options.jwks_file:
            path = Path(options.jwks_file)
            return cls(str(path), lambda: asyncio.to_thread(_contents, path), counters)
        return None

    def get(self, name: str) -> Iterable[VerificationKey]:
        """The keys of a `kid`, none if it is not known."""
        age = self._clock() - self._read_at
        if age > _REREAD_SECONDS:
            self._read_if_due()
            if age > _KEPT_SECONDS:
                return ()
        return self._keys.get(name, ())

    async def find(self, name: str) -> None:
        """Read the set again because of a `kid` that it does not have.

        Raises:
            TokenRefused: it has no such key, or could not be read, or was read a moment ago.
        """
        reading = self._read_if_due()
        if reading is not None:
            # The read goes on for the others if this one does not wait any longer.
            await asyncio.shield(reading)
            if name in self._keys:
                return
            if not self._failures:
                raise TokenRefused("unknown_key")
        if self._failures:
            self._counters.errors["token_keys"] += 1
        raise TokenRefused("keys_unavailable")

    def _read_if_due(self) -> asyncio.Task[None] | None:
        """The read that is going on now, None if it is too early for one."""
        if self._reading is None and self._clock() >= self._next_at:
            self._reading = asyncio.get_running_loop().create_task(self._read())
        return self._reading

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                text = await self._source()
            self._keys, ignored = parsed(text)
        except (OSError, aiohttp.ClientError, TimeoutError, ValueError) as error:
            self._failures += 1
            self._counters.key_set_reads["failed"] += 1
            wait = min(_BACKOFF_LIMIT_SECONDS, _BACKOFF_SECONDS * 2 ** min(self._failures - 1, 10))
            self._next_at = self._clock() + wait * random.uniform(0.5, 1.0)
            reason = str(error) or f"no answer within {_TIMEOUT_SECONDS:g} s"
            log.error("key_set_read_failed", source=self._name, reason=reason)
        else:
            self._failures = 0
            self._counters.key_set_reads["read"] += 1
            self._read_at = self._clock()
            self._next_at = self._read_at + LEAST_INTERVAL_SECONDS
            log.info("key_set_read", source=self._name, keys=len(self._keys), ignored=ignored)
        finally:
            self._reading = None


async def _fetched(url: URL) -> bytes:
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with (
        aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
        session.get(url, headers=headers, allow_redirects=False) as response,
    ):
        if response.status != 200:
            raise ValueError(f"it was answered with HTTP {response.status}")
        text = bytearray()
        async for chunk in response.content.iter_chunked(65_536):
            text += chunk
            if len(text) > MAXIMUM_BYTES:
                raise ValueError(f"it has more than {MAXIMUM_BYTES} bytes")
        return bytes(text)


def _contents(path: Path) -> bytes:
    with path.open("rb") as file:
        text = file.read(MAXIMUM_BYTES + 1)
    if len(text) > MAXIMUM_BYTES:
        raise ValueError(f"it has more than {MAXIMUM_BYTES} bytes")
    return text
