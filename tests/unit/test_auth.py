"""Tokens: what lets a client in, what keeps it out, and with which code."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.auth import Claims, authenticate
from cluster.config import ClientConfig, Config, TokenConfig
from cluster.errors import ClientError, Disconnect

KEY = "a secret key"
NOW = 1_000_000.0
GUARDED = Config(client=ClientConfig(token=TokenConfig(hmac_secret_key=KEY)))
INSECURE = Config(client=ClientConfig(insecure=True))
BOTH = Config(client=ClientConfig(insecure=True, token=TokenConfig(hmac_secret_key=KEY)))
HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


def part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: Any, claims: Any, *, key: str = KEY, algorithm: str = "HS256") -> str:
    body = f"{part(orjson.dumps(header))}.{part(orjson.dumps(claims))}"
    signature = hmac.new(key.encode(), body.encode(), HASHES[algorithm]).digest()
    return f"{body}.{part(signature)}"


def token(algorithm: str = "HS256", key: str = KEY, **claims: Any) -> str:
    return signed({"alg": algorithm, "typ": "JWT"}, claims, key=key, algorithm=algorithm)


def refusal(text: str, config: Config = GUARDED) -> int:
    with pytest.raises((ClientError, Disconnect)) as caught:
        authenticate(text, config, NOW)
    assert isinstance(caught.value, ClientError | Disconnect)
    return caught.value.code


@pytest.mark.parametrize("algorithm", sorted(HASHES))
def test_a_token_signed_with_our_key_lets_its_user_in(algorithm: str):
    claims = authenticate(token(algorithm, sub="ann", info={"a": 1}), GUARDED, NOW)
    assert claims == Claims("ann", {"a": 1}, 0)


def test_a_token_of_another_implementation_is_accepted():
    # Signed with the key "secret" by the example of RFC 7515's most used debugger.
    text = (
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
        "eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ."
        "SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
    )
    key = TokenConfig(hmac_secret_key="your-256-bit-secret")
    claims = authenticate(text, Config(client=ClientConfig(token=key)), NOW)
    assert claims.user == "1234567890"


def test_a_token_without_a_user_is_anonymous():
    assert authenticate(token(), GUARDED, NOW).user == ""


def test_without_a_token_the_door_is_closed():
    assert refusal("") == 3501


def test_in_insecure_mode_nobody_needs_a_token():
    assert authenticate("", INSECURE, NOW) == Claims("", None, 0)
    assert authenticate("anything", INSECURE, NOW) == Claims("", None, 0)
    assert authenticate("", BOTH, NOW) == Claims("", None, 0)


def test_in_insecure_mode_a_token_still_says_who_it_is_but_nobodys_time_runs_out():
    assert authenticate(token(sub="ann", exp=int(NOW) + 5), BOTH, NOW) == Claims("ann", None, 0)


def test_a_key_is_needed_to_check_a_token():
    assert refusal(token(), Config()) == 3500


@pytest.mark.parametrize(
    "text",
    [
        token(key="another key"),
        "x", ".", "..", "...", "a.b.c", "é.é.é",
        token()[:-2], token() + "A", "x" + token(),
        token().replace(".", ".."), token() + ".x",
        signed({"alg": "none"}, {}), signed({"alg": "RS256"}, {}), signed({"alg": None}, {}),
        signed({"alg": ["HS256"]}, {}), signed({}, {}), signed([], {}), signed("HS256", {}),
        signed({"alg": "HS256"}, []), signed({"alg": "HS256"}, None), signed({"alg": "HS256"}, "x"),
        signed({"alg": "HS512"}, {}),
        token(sub=1), token(sub=None), token(exp="soon"), token(exp=1e9), token(nbf="x"),
        token(exp=True), token(channel="a"),
    ],
)  # fmt: skip
def test_what_is_no_token_of_ours_closes_with_3500(text: str):
    assert refusal(text) == 3500


def test_a_token_without_a_signature_is_invalid():
    head, body, _ = token().split(".")
    assert refusal(f"{head}.{body}.") == 3500
    assert refusal(f"{head}.{body}") == 3500


@pytest.mark.parametrize("expiry", [NOW, NOW - 1, 1, -1])
def test_an_expired_token_is_109_so_that_the_sdk_fetches_another(expiry: float):
    assert refusal(token(exp=int(expiry))) == 109


def test_a_token_that_does_not_hold_yet_is_109():
    assert refusal(token(nbf=int(NOW) + 1)) == 109
    assert authenticate(token(nbf=int(NOW)), GUARDED, NOW).user == ""


def test_a_token_that_expires_says_when():
    assert authenticate(token(exp=int(NOW) + 60), GUARDED, NOW).expires_at == int(NOW) + 60


@given(st.text())
def test_any_text_is_refused_and_never_an_exception(text: str):
    assert refusal(text) in {3500, 3501}


@given(
    st.integers(min_value=0, max_value=10_000), st.characters(min_codepoint=33, max_codepoint=126)
)
def test_a_token_with_one_changed_character_is_refused(at: int, character: str):
    good = token(sub="ann", exp=int(NOW) + 9)
    at %= len(good) - 1
    if good[at] != character:
        assert refusal(good[:at] + character + good[at + 1 :]) in {3500, 109}
