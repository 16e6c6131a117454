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

from cluster.auth import ANONYMOUS, Authenticator, Claims
from cluster.auth.token_keys import MAXIMUM_TOKEN_BYTES
from cluster.config import ClientConfig, Config, TokenConfig
from cluster.errors import ClientError, Disconnect
from cluster.metrics.counters import Counters

KEY = "a secret key"
NOW = 1_000_000.0
GUARDED = Config(client=ClientConfig(token=TokenConfig(hmac_secret_key=KEY)))
INSECURE = Config(client=ClientConfig(insecure=True))
BOTH = Config(client=ClientConfig(insecure=True, token=TokenConfig(hmac_secret_key=KEY)))
NO_TIMES: list[Any] = ["soon", "1", None, True, [1], {}, 1e30, -1e30]
HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


def config_of(**client: Any) -> Config:
    return Config(client=ClientConfig(**client))


def authenticate(text: str, config: Config, now: float) -> Claims:
    """What a connect with this token becomes; no key set is asked, so nothing is awaited."""
    verifying = Authenticator(config, Counters(), clock=lambda: now).connection(text)
    try:
        verifying.send(None)
    except StopIteration as done:
        claims: Claims = done.value
        return claims
    raise AssertionError("it waits for something")


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
    assert claims == Claims("ann", b'{"a":1}', 0)


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


def test_without_a_token_the_connection_is_refused():
    assert refusal("") == 3501


@pytest.mark.parametrize("disallows", [False, True])
def test_without_a_token_a_connection_is_anonymous_where_that_is_allowed(disallows: bool):
    """Tokens without a user are another matter: what disallows them says nothing of no token."""
    open_to_all = config_of(
        allow_anonymous_connect_without_token=True,
        disallow_anonymous_connection_tokens=disallows,
        token=TokenConfig(hmac_secret_key=KEY),
    )
    assert authenticate("", open_to_all, NOW) is ANONYMOUS
    assert authenticate(token(sub="ann", exp=int(NOW) + 5), open_to_all, NOW).expires_at == NOW + 5
    assert refusal("x", open_to_all) == 3500
    assert refusal(token(key="another key"), open_to_all) == 3500
    assert refusal(token(exp=int(NOW) - 5), open_to_all) == 109
    assert (refusal(token(), open_to_all) == 3507) if disallows else True
    assert refusal("x", config_of(allow_anonymous_connect_without_token=True)) == 3500


def test_in_insecure_mode_no_token_is_needed():
    assert authenticate("", INSECURE, NOW) is ANONYMOUS
    assert authenticate("anything", INSECURE, NOW) is ANONYMOUS
    assert authenticate("", BOTH, NOW) is ANONYMOUS


def test_in_insecure_mode_a_token_still_names_the_user_but_does_not_expire():
    assert authenticate(token(sub="ann", exp=int(NOW) + 5), BOTH, NOW) == Claims("ann", b"", 0)


def test_a_key_is_needed_to_check_a_token():
    assert refusal(token(), Config()) == 3500


@pytest.mark.parametrize(
    "text",
    [
        token(key="another key"),
        "x", ".", "..", "...", "a.b.c", "é.é.é",
        token()[:-2], token() + "A", "x" + token(),
        token().replace(".", ".."), token() + ".x",
        signed({"alg": None}, {}),
        signed({"alg": ["HS256"]}, {}), signed({}, {}), signed([], {}), signed("HS256", {}),
        signed({"alg": "HS256"}, []), signed({"alg": "HS256"}, None), signed({"alg": "HS256"}, "x"),
        signed({"alg": "HS512"}, {}),
        token(sub=1), token(sub=None), token(sub=["ann"]), token(sub=True), token(channel="a"),
        *(token(**{name: wrong}) for name in ("exp", "nbf", "iat") for wrong in NO_TIMES),
    ],
)  # fmt: skip
def test_a_malformed_or_unverifiable_token_closes_with_3500(text: str):
    assert refusal(text) == 3500


def test_a_token_without_a_signature_is_invalid():
    head, body, _ = token().split(".")
    assert refusal(f"{head}.{body}.") == 3500
    assert refusal(f"{head}.{body}") == 3500


# --- the algorithm and the key (RFC 8725 §3.1) ---------------------------------------------


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", ""])
def test_a_token_that_asks_for_no_signature_is_refused(algorithm: str):
    head, body, _ = signed({"alg": algorithm}, {"sub": "ann"}).split(".")
    assert refusal(f"{head}.{body}.") == 3500
    assert refusal(signed({"alg": algorithm}, {"sub": "ann"})) == 3500


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_an_hmac_signature_under_the_name_of_an_asymmetric_algorithm_is_refused(algorithm: str):
    assert refusal(signed({"alg": algorithm}, {"sub": "ann"})) == 3500


PUBLIC_KEY = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""


@pytest.mark.parametrize("key", [PUBLIC_KEY, "ssh-ed25519 AAAA ann", '{"kty":"oct","k":"AAAA"}'])
def test_a_published_key_is_never_an_hmac_secret(key: str):
    config = Config(client=ClientConfig(token=TokenConfig(hmac_secret_key=key)))
    assert refusal(token(key=key), config) == 3500


@pytest.mark.parametrize(
    "algorithm", ["HS1", "hs256", "HS256 ", "HS2560", "A128KW", "dir", 256, {}]
)
def test_an_unknown_algorithm_is_refused(algorithm: Any):
    assert refusal(signed({"alg": algorithm}, {"sub": "ann"})) == 3500


def test_the_algorithm_of_the_header_is_the_one_that_verifies():
    assert refusal(signed({"alg": "HS256"}, {}, algorithm="HS512")) == 3500


def test_a_short_key_verifies_and_warns_nowhere(recwarn: pytest.WarningsRecorder):
    config = Config(client=ClientConfig(token=TokenConfig(hmac_secret_key="k")))
    assert authenticate(token("HS512", key="k"), config, NOW).user == ""
    assert list(recwarn) == []


@pytest.mark.parametrize(
    "extra",
    [
        {"crit": ["exp"], "exp": 1}, {"crit": ["x"], "x": True}, {"crit": ["x"]}, {"crit": []},
        {"crit": "x"}, {"crit": [1]}, {"crit": None}, {"crit": ["b64"], "b64": False},
        {"b64": False}, {"b64": False, "crit": []}, {"crit": ["b64", "x"], "b64": True}, {"kid": 1},
    ],
)  # fmt: skip
def test_a_header_that_is_not_understood_is_refused(extra: dict[str, Any]):
    assert refusal(signed({"alg": "HS256", **extra}, {"sub": "ann"})) == 3500


def test_other_members_of_a_header_are_ignored():
    header = {"alg": "HS256", "typ": "at+jwt", "cty": "x", "kid": "1", "jku": "http://x", "y": 1}
    assert authenticate(signed(header, {"sub": "ann"}), GUARDED, NOW).user == "ann"


# --- the form (RFC 7515 §2) ----------------------------------------------------------------


def with_signature_over(body: str) -> str:
    signature = hmac.new(KEY.encode(), body.encode(), hashlib.sha256).digest()
    return f"{body}.{part(signature)}"


HEAD = part(b'{"alg":"HS256"}')


def padded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def test_padded_base64_is_refused():
    head, body = b'{"alg":"HS256"}   ', b'{"sub":"an"}  '
    assert authenticate(with_signature_over(f"{part(head)}.{part(body)}"), GUARDED, NOW).user
    assert refusal(with_signature_over(f"{part(head)}.{padded(body)}")) == 3500
    assert refusal(token() + "=") == 3500


def test_base64_of_the_other_alphabet_is_refused():
    body = orjson.dumps({"sub": "ÿÿÿ~~~???>>>"})
    plain = base64.b64encode(body).rstrip(b"=").decode()
    assert "/" in plain or "+" in plain
    assert refusal(with_signature_over(f"{HEAD}.{plain}")) == 3500


def test_a_token_with_white_space_is_refused():
    good = token(sub="ann")
    head, body, _ = good.split(".")
    for white in " \n\r\t\v\f\0":
        for at in range(len(good) + 1):
            assert refusal(good[:at] + white + good[at:]) == 3500
        assert refusal(with_signature_over(f"{head}{white}.{body}")) == 3500
        assert refusal(with_signature_over(f"{head}.{white}{body}")) == 3500


def test_a_signature_has_one_spelling():
    # 32 bytes in base64 leave 2 bits of the last character unused; they must be 0.
    good = token(sub="ann")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for more in (1, 2, 3):
        last = alphabet[alphabet.index(good[-1]) ^ more]
        assert refusal(good[:-1] + last) == 3500


def test_a_token_of_the_largest_size_is_accepted_and_a_larger_one_refused_unread():
    room = MAXIMUM_TOKEN_BYTES * 3 // 4
    lengths = [len(token(info="x" * size)) for size in (room - 80, room)]
    assert lengths[0] <= MAXIMUM_TOKEN_BYTES < lengths[1]
    assert authenticate(token(info="x" * (room - 80)), GUARDED, NOW).info
    assert refusal(token(info="x" * room)) == 3500


@pytest.mark.parametrize("depth", [500, 5000])
def test_a_deeply_nested_header_or_body_is_refused(depth: int):
    nested = b"[" * depth + b"]" * depth
    assert refusal(with_signature_over(f"{part(nested)}.{part(b'{}')}")) == 3500
    assert refusal(with_signature_over(f"{HEAD}.{part(nested)}")) == 3500


# --- the times (RFC 7519 §2: a NumericDate may have a fraction) ----------------------------


@pytest.mark.parametrize("expiry", [NOW, NOW - 1, 1, 0, -1, NOW - 0.5, NOW + 0.0])
def test_an_expired_token_is_109_so_that_the_sdk_fetches_another(expiry: float):
    assert refusal(token(exp=int(expiry))) == 109
    assert refusal(token(exp=expiry)) == 109


def test_a_token_that_is_not_yet_valid_is_109():
    assert refusal(token(nbf=int(NOW) + 1)) == 109
    assert refusal(token(nbf=NOW + 0.5)) == 109
    assert authenticate(token(nbf=int(NOW)), GUARDED, NOW).user == ""


def test_a_token_that_expires_says_when():
    assert authenticate(token(exp=int(NOW) + 60), GUARDED, NOW).expires_at == int(NOW) + 60


def test_times_with_a_fraction_are_accepted():
    claims = authenticate(token(exp=NOW + 60.5, nbf=NOW - 0.5, iat=NOW - 0.5), GUARDED, NOW)
    assert claims.expires_at == int(NOW) + 60


def test_the_time_of_issue_is_no_condition():
    claims = authenticate(token(iat=int(NOW) + 60), GUARDED, NOW)
    assert claims == Claims("", b"", 0, issued_at=int(NOW) + 60.0)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("0", 109), ("-0.0", 109), ("-1e-9", 109), ("-9007199254740992", 109), ("999999.9", 109),
        ("1e6", 109), ("NaN", 3500), ("Infinity", 3500), ("-Infinity", 3500), ("1e400", 3500),
        ("true", 3500), ("false", 3500), ("null", 3500), ('"1000060"', 3500), ("01000060", 3500),
        ("9007199254740993", 3500), ("99999999999999999999999", 3500), ("[1000060]", 3500),
    ],
)  # fmt: skip
def test_an_expiry_is_a_finite_number_in_the_future(text: str, code: int):
    body = b'{"exp":%b}' % text.encode()
    assert refusal(with_signature_over(f"{HEAD}.{part(body)}")) == code


@pytest.mark.parametrize("expiry", [NOW + 366 * 86400, 2**32, 2**53, 1e15])
def test_an_expiry_in_the_far_future_is_a_year_away(expiry: float):
    # The remaining seconds must fit in 32 bits; JavaScript's timers would end at once.
    year = int(NOW) + 365 * 86400
    assert authenticate(token(exp=expiry), GUARDED, NOW).expires_at == year


def test_of_claims_that_repeat_the_last_one_counts():
    lasting, expired = b'"exp":1000060', b'"exp":1'
    body = b'{"sub":"ann",%b,"sub":"bob",%b}' % (expired, lasting)
    text = with_signature_over(f"{HEAD}.{part(body)}")
    assert authenticate(text, GUARDED, NOW) == Claims("bob", b"", 1_000_060)
    body = b"{%b,%b}" % (lasting, expired)
    assert refusal(with_signature_over(f"{HEAD}.{part(body)}")) == 109


def test_of_header_members_that_repeat_the_last_one_counts():
    good, bad = b'{"alg":"none","alg":"HS256"}', b'{"alg":"HS256","alg":"none"}'
    assert authenticate(with_signature_over(f"{part(good)}.{part(b'{}')}"), GUARDED, NOW).user == ""
    assert refusal(with_signature_over(f"{part(bad)}.{part(b'{}')}")) == 3500
    repeated = b'{"alg":"HS256","crit":[],"crit":["x"]}'
    assert refusal(with_signature_over(f"{part(repeated)}.{part(b'{}')}")) == 3500


# --- anything ------------------------------------------------------------------------------


@given(st.text())
def test_any_text_is_refused_and_never_an_exception(text: str):
    assert refusal(text) in {3500, 3501}


@given(
    st.integers(min_value=0, max_value=10_000), st.characters(min_codepoint=33, max_codepoint=126)
)
def test_a_token_with_one_changed_character_is_refused(at: int, character: str):
    good = token(sub="ann", exp=int(NOW) + 9)
    at %= len(good)
    if good[at] != character:
        assert refusal(good[:at] + character + good[at + 1 :]) in {3500, 109}


@pytest.mark.parametrize(
    ("size", "verified"), [(32, {"HS256"}), (48, {"HS256", "HS384"}), (64, None)]
)
def test_a_key_that_is_shorter_than_the_hash_does_not_verify_it(
    size: int, verified: set[str] | None
):
    key = "k" * size
    config = Config(client=ClientConfig(token=TokenConfig(hmac_secret_key=key)))
    for algorithm in HASHES:
        if verified is None or algorithm in verified:
            assert authenticate(token(algorithm, key=key), config, NOW).user == ""
        else:
            assert refusal(token(algorithm, key=key), config) == 3500
