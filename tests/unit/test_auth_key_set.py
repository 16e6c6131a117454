"""A JSON Web Key Set: kept, read again for an unknown key, bounded, and never read per connect."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cluster.auth import Authenticator, key_set
from cluster.config import ClientConfig, Config, TokenConfig
from cluster.errors import ClientError, Disconnect
from cluster.metrics.counters import Counters
from tests.unit.token_making import ASYMMETRIC, jwk, jwks, made, private_key, rsa_key


class Provider:
    """Publishes a key set; counts how often it is asked."""

    def __init__(self) -> None:
        self.text = b""
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked = 0
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(body=self.text, status=self.status, headers=self.headers)

    def verifier(self) -> tuple[Authenticator, Counters]:
        options = TokenConfig(jwks_public_endpoint=self.url)
        counters = Counters()
        return Authenticator(Config(client=ClientConfig(token=options)), counters), counters


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    app = web.Application()
    app.router.add_get("/keys", made.answer)
    async with TestServer(app) as server:
        made.url = str(server.make_url("/keys"))
        yield made


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each unknown key may read the set at once."""
    monkeypatch.setattr(key_set, "LEAST_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(key_set, "_BACKOFF_SECONDS", 0.0)


async def code(verifier: Authenticator, text: str) -> int:
    """0 if the token is accepted."""
    try:
        await verifier.connection(text)
    except (ClientError, Disconnect) as refused:
        return refused.code
    return 0


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
async def test_a_token_is_verified_by_the_key_that_it_names(provider: Provider, algorithm: str):
    key = private_key(algorithm)
    provider.text = jwks(jwk(rsa_key(2048, 1), "other"), jwk(key, "mine", use="sig"))
    verifier, _ = provider.verifier()
    assert await code(verifier, made(algorithm, key, kid="mine", sub="ann")) == 0
    assert await code(verifier, made(algorithm, key, kid="other", sub="ann")) == 3500
    assert await code(verifier, made(algorithm, key, sub="ann")) == 3500
    assert provider.asked == 1


async def test_the_algorithm_of_a_key_is_the_only_one(provider: Provider):
    provider.text = jwks(jwk(rsa_key(), "k", alg="PS256"))
    verifier, _ = provider.verifier()
    assert await code(verifier, made("PS256", rsa_key(), kid="k")) == 0
    assert await code(verifier, made("RS256", rsa_key(), kid="k")) == 3500


async def test_many_that_connect_at_first_share_one_read(provider: Provider):
    provider.text = jwks(jwk(rsa_key(), "k"))
    verifier, counters = provider.verifier()
    text = made("RS256", rsa_key(), kid="k")
    assert await asyncio.gather(*(code(verifier, text) for _ in range(50))) == [0] * 50
    assert provider.asked == 1
    assert counters.key_set_reads == {"read": 1, "failed": 0}


async def test_a_flood_of_unknown_keys_costs_one_read_and_is_temporary(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
):
    # A slow machine must not reach the end of the interval.
    monkeypatch.setattr(key_set, "LEAST_INTERVAL_SECONDS", 3600.0)
    provider.text = jwks(jwk(rsa_key(), "k"))
    verifier, counters = provider.verifier()
    flood = [made("RS256", rsa_key(), kid=f"unknown-{number}") for number in range(50)]
    codes = [await code(verifier, text) for text in flood]
    # The set was read for the first of them, so it is known that there is no such key.
    assert codes == [3500] + [100] * 49
    assert provider.asked == 1
    assert counters.tokens_refused["keys_unavailable"] == 49
    assert counters.errors["token_keys"] == 0
    assert await code(verifier, made("RS256", rsa_key(), kid="k")) == 0


async def test_a_new_key_is_found_and_an_old_one_forgotten(provider: Provider, no_waiting: None):
    old, new = rsa_key(), rsa_key(2048, 1)
    provider.text = jwks(jwk(old, "old"))
    verifier, _ = provider.verifier()
    assert await code(verifier, made("RS256", old, kid="old")) == 0
    provider.text = jwks(jwk(new, "new"))
    assert await code(verifier, made("RS256", new, kid="new")) == 0
    assert await code(verifier, made("RS256", old, kid="old")) == 3500


async def test_while_the_set_cannot_be_read_its_last_keys_are_used(
    provider: Provider, no_waiting: None
):
    provider.text = jwks(jwk(rsa_key(), "k"))
    verifier, counters = provider.verifier()
    assert await code(verifier, made("RS256", rsa_key(), kid="k")) == 0
    provider.status = 503
    assert await code(verifier, made("RS256", rsa_key(), kid="new")) == 100
    assert await code(verifier, made("RS256", rsa_key(), kid="k")) == 0
    assert counters.key_set_reads == {"read": 1, "failed": 1}
    assert counters.errors["token_keys"] == 1


async def test_after_a_failure_the_set_is_not_read_for_a_while(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(key_set, "_BACKOFF_SECONDS", 60.0)
    provider.status = 500
    verifier, counters = provider.verifier()
    assert [await code(verifier, made("RS256", rsa_key(), kid="k")) for _ in range(9)] == [100] * 9
    assert provider.asked == 1
    assert counters.errors["token_keys"] == 9


@pytest.mark.parametrize(
    ("text", "status", "headers"),
    [
        (b"", 200, {}),
        (b"{}", 200, {}),
        (b"[]", 200, {}),
        (b'{"keys":1}', 200, {}),
        (b'{"keys":[]}', 200, {}),
        (b"[" * 5000, 200, {}),
        (b'{"keys":[%b]}' % b",".join([b"{}"] * 101), 200, {}),
        (b" " * (key_set.MAXIMUM_BYTES + 1), 200, {}),
        (b"", 302, {"Location": "/keys"}),
        (b"", 404, {}),
        (jwks(jwk(rsa_key(1024), "short")), 200, {}),
        (jwks({"kty": "oct", "k": "c2VjcmV0", "kid": "k"}), 200, {}),
        (jwks(jwk(rsa_key(), "k", use="enc")), 200, {}),
        (jwks(jwk(rsa_key(), "k", key_ops=["encrypt"])), 200, {}),
        (jwks(jwk(rsa_key(), "k", alg="HS256")), 200, {}),
    ],
)
async def test_an_answer_that_is_no_set_of_usable_keys_is_a_failure(
    provider: Provider, text: bytes, status: int, headers: dict[str, str]
):
    provider.text, provider.status, provider.headers = text, status, headers
    verifier, counters = provider.verifier()
    assert await code(verifier, made("RS256", rsa_key(), kid="k")) == 100
    assert counters.key_set_reads == {"read": 0, "failed": 1}


async def test_keys_that_are_not_understood_are_ignored(provider: Provider):
    odd: list[Any] = [1, {}, {"kty": "new", "kid": "n"}, {"kty": "EC", "kid": "e", "crv": "P-256"}]
    provider.text = jwks(*odd, jwk(rsa_key(), "k"))
    verifier, _ = provider.verifier()
    assert await code(verifier, made("RS256", rsa_key(), kid="k")) == 0


async def test_a_client_that_goes_away_does_not_end_the_read_of_the_others(provider: Provider):
    provider.text = jwks(jwk(rsa_key(), "k"))
    verifier, _ = provider.verifier()
    text = made("RS256", rsa_key(), kid="k")
    leaving = asyncio.ensure_future(code(verifier, text))
    staying = asyncio.ensure_future(code(verifier, text))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == 0
    with contextlib.suppress(asyncio.CancelledError):
        await leaving


async def test_a_set_may_be_a_file_that_is_read_again(tmp_path: Path, no_waiting: None):
    path = tmp_path / "keys.json"
    options = TokenConfig(jwks_file=str(path))
    verifier = Authenticator(Config(client=ClientConfig(token=options)), Counters())
    text = made("ES256", private_key("ES256"), kid="k")
    assert await code(verifier, text) == 100
    path.write_bytes(jwks(jwk(private_key("ES256"), "k")))
    assert await code(verifier, text) == 0
    path.write_bytes(b" " * (key_set.MAXIMUM_BYTES + 1))
    assert await code(verifier, made("ES256", private_key("ES256"), kid="new")) == 100
    assert await code(verifier, text) == 0
