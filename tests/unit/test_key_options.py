"""Keys that options give: which are refused, and that a message never shows one."""

from __future__ import annotations

from typing import Any

import pytest

from cluster import config
from tests.unit.test_config import INSECURE, SECRET, mistakes

SHORTEST = 32
KEYS = [
    "client.token.hmac_secret_key",
    "client.token.hmac_previous_secret_key",
    "client.subscription_token.hmac_secret_key",
    "client.subscription_token.hmac_previous_secret_key",
    "admin.key",
    "http_api.key",
]


@pytest.mark.parametrize(
    "key",
    [
        "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n",
        "ssh-ed25519 AAAA ann",
        '{"kty": "oct", "k": "AAAA"}',
        '[\n{"k": "AAAA", "kty": "oct"}]',
    ],
)
def test_a_published_key_is_refused_as_the_secret_of_an_hmac(key: str):
    reported = mistakes(flags={"client.token.hmac_secret_key": key})
    assert reported == {
        "client.token.hmac_secret_key": "*** | give a random secret; "
        "this is a public or private key, or a certificate"
    }


def assert_needs_32_bytes(key: str, given: dict[str, Any], short: dict[str, Any]) -> None:
    """A short key is refused without being shown; in insecure mode and with 32 bytes it is accepted."""
    reported = mistakes(flags=short)
    assert set(reported) == {key}
    assert "a random key of 32 bytes or more" in reported[key]
    assert "a" * (SHORTEST - 1) not in reported[key]
    config.load(flags=given)
    config.load(flags={**short, **INSECURE})


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_less_than_32_bytes_is_refused_outside_insecure_mode(key: str):
    section = key.rpartition(".")[0]
    keys: dict[str, Any] = {"client.token.hmac_secret_key": SECRET}
    if section == "client.subscription_token":
        keys |= {f"{section}.enabled": True, f"{section}.hmac_secret_key": SECRET}
    assert_needs_32_bytes(key, {**keys, key: "a" * SHORTEST}, {**keys, key: "a" * (SHORTEST - 1)})


def test_a_named_key_of_the_server_api_of_less_than_32_bytes_is_refused_outside_insecure_mode():
    def flags(length: int) -> dict[str, Any]:
        named = [{"name": "one", "key": "b" * SHORTEST}, {"name": "two", "key": "a" * length}]
        return {"client.token.hmac_secret_key": SECRET, "http_api.keys": named}

    key = "http_api.keys[1].key"
    assert_needs_32_bytes(key, flags(SHORTEST), flags(SHORTEST - 1))
