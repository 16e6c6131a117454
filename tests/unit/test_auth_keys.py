"""Public keys, previous secrets, audiences: which key verifies which token, and which is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import orjson
import pytest

from cluster.auth import Authenticator, ChannelOverride, Claims, ServerSubscription
from cluster.config import ClientConfig, Config, SubscriptionTokenConfig, TokenConfig, load
from cluster.errors import ClientError, ConfigError, Disconnect
from cluster.metrics.counters import Counters
from tests.unit.test_auth import NOW, authenticate, refusal, token
from tests.unit.token_making import (
    ASYMMETRIC,
    CURVES,
    RSA,
    made,
    private_key,
    private_pem,
    public_pem,
    rsa_key,
)

SECRET = "s" * 64
OTHER = "o" * 64


def guarded(**options: Any) -> Config:
    return Config(client=ClientConfig(token=TokenConfig(**options)))


def public(algorithm: str) -> Config:
    name = "rsa_public_key" if algorithm in RSA else "ecdsa_public_key"
    return guarded(**{name: public_pem(private_key(algorithm))})


def reason(text: str, config: Config, kind: str = "connection") -> str:
    """Why a token is refused."""
    counters = Counters()
    verifier = Authenticator(config, counters, clock=lambda: NOW)
    verifying = (
        verifier.connection(text)
        if kind == "connection"
        else verifier.subscription(text, "a", "ann", "id")
    )
    with pytest.raises((ClientError, Disconnect)):
        verifying.send(None)
    [found] = [name for name, count in counters.tokens_refused.items() if count]
    return found


# --- algorithms --------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [*RSA, *CURVES])
def test_a_token_of_our_public_key_lets_its_user_in(algorithm: str):
    text = made(algorithm, private_key(algorithm), sub="ann")
    assert authenticate(text, public(algorithm), NOW).user == "ann"


@pytest.mark.parametrize("algorithm", [*RSA, *CURVES])
def test_a_changed_token_of_a_public_key_is_refused(algorithm: str):
    head, _, signature = made(algorithm, private_key(algorithm), sub="ann").split(".")
    body = base64.urlsafe_b64encode(b'{"sub":"eve"}').rstrip(b"=").decode()
    assert reason(f"{head}.{body}.{signature}", public(algorithm)) == "signature"


@pytest.mark.parametrize("algorithm", [*RSA, *CURVES])
@pytest.mark.parametrize("hashed", ["HS256", "HS384", "HS512"])
def test_the_text_of_a_public_key_is_no_secret_of_an_hmac(algorithm: str, hashed: str):
    """RFC 8725 §2.1: everybody has the public key, and could sign with it."""
    key = public_pem(private_key(algorithm)).encode()
    head = base64.urlsafe_b64encode(orjson.dumps({"alg": hashed})).rstrip(b"=")
    body = base64.urlsafe_b64encode(b'{"sub":"eve"}').rstrip(b"=")
    size = f"sha{hashed[2:]}"
    signature = hmac.new(key, head + b"." + body, getattr(hashlib, size)).digest()
    text = b".".join([head, body, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()
    for config in (public(algorithm), guarded(hmac_secret_key=SECRET, **_public(algorithm))):
        assert reason(text, config) in {"algorithm", "signature"}


def _public(algorithm: str) -> dict[str, str]:
    name = "rsa_public_key" if algorithm in RSA else "ecdsa_public_key"
    return {name: public_pem(private_key(algorithm))}


@pytest.mark.parametrize("given", ASYMMETRIC)
@pytest.mark.parametrize("named", ["ES256", "ES384", "ES512", "RS256", "PS256", "none", "EdDSA"])
def test_a_key_verifies_no_other_algorithm(given: str, named: str):
    if given == named or (given in RSA and named in RSA):
        return
    key = private_key(given)
    _, body, signature = made(given, key, sub="eve").split(".")
    head = base64.urlsafe_b64encode(orjson.dumps({"alg": named})).rstrip(b"=").decode()
    config = public("RS256") if given == "EdDSA" else public(given)
    assert refusal(f"{head}.{body}.{signature}", config) == 3500


@pytest.mark.parametrize("algorithm", [*RSA, *CURVES])
def test_without_a_secret_no_hmac_is_accepted_and_without_a_public_key_no_other(algorithm: str):
    assert reason(token(key=SECRET), public(algorithm)) == "algorithm"
    text = made(algorithm, private_key(algorithm), sub="ann")
    assert reason(text, guarded(hmac_secret_key=SECRET)) == "algorithm"


def test_both_a_secret_and_public_keys_may_be_configured():
    config = guarded(hmac_secret_key=SECRET, **_public("RS256"), **_public("ES256"))
    assert authenticate(token(key=SECRET, sub="ann"), config, NOW).user == "ann"
    for algorithm in ("RS512", "PS256", "ES256"):
        text = made(algorithm, private_key(algorithm), sub="bob")
        assert authenticate(text, config, NOW).user == "bob"
    assert reason(made("ES384", private_key("ES384")), config) == "algorithm"


# --- keys that are not accepted ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("rsa_public_key", "nonsense", "give a public key in PEM"),
        ("rsa_public_key", public_pem(private_key("ES256")), "give a public key of RSA"),
        ("ecdsa_public_key", public_pem(rsa_key()), "give a public key of ECDSA"),
        ("ecdsa_public_key", public_pem(private_key("EdDSA")), "give a public key of ECDSA"),
        ("rsa_public_key", public_pem(rsa_key(1024)), "2048 to 8192 bits; it has 1024"),
        ("rsa_public_key", private_pem(rsa_key()).decode(), "this is the private one"),
        ("hmac_previous_secret_key", public_pem(rsa_key()), "give a random secret"),
        ("hmac_previous_secret_key", "short", "32 bytes or more"),
        ("jwks_public_endpoint", "ftp://me:hunter2@x", "give a URL such as https"),
    ],
)
def test_a_wrong_kind_of_key_is_refused_in_the_configuration(option: str, text: str, said: str):
    for section in ("client.token", "client.subscription_token"):
        with pytest.raises(ConfigError) as caught:
            load(
                flags={"client.token.hmac_secret_key": SECRET, f"{section}.{option}": text}, env={}
            )
        [found] = caught.value.problems
        assert found.key == f"{section}.{option}"
        assert said in found.allowed
        assert text[:40] not in found.value


def test_keys_of_subscriptions_alone_must_be_there():
    flags = {"client.token.hmac_secret_key": SECRET, "client.subscription_token.enabled": True}
    with pytest.raises(ConfigError, match="subscription_token"):
        load(flags=flags, env={})
    pem = public_pem(rsa_key())
    assert load(flags={"client.token.rsa_public_key": pem}, env={}).client.token.rsa_public_key


# --- the previous secret -------------------------------------------------------------------------


def test_tokens_of_the_previous_secret_are_accepted_until_its_time():
    keys = {"hmac_secret_key": SECRET, "hmac_previous_secret_key": OTHER}
    old = token(key=OTHER, sub="ann")
    for until, accepted in ((0, True), (int(NOW) + 1, True), (int(NOW), False), (1, False)):
        config = guarded(**keys, hmac_previous_secret_key_valid_until=until)
        assert authenticate(token(key=SECRET, sub="ann"), config, NOW).user == "ann"
        if accepted:
            assert authenticate(old, config, NOW).user == "ann"
        else:
            assert reason(old, config) == "signature"
    assert reason(token(key="x" * 64), guarded(**keys)) == "signature"


# --- audience, issuer, anonymous -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "is_accepted"),
    [("us", True), (["them", "us"], True), ("them", False), ([], False), (None, False)],
)
def test_a_token_of_another_audience_is_refused(given: Any, is_accepted: bool):
    config = guarded(hmac_secret_key=SECRET, audience="us")
    text = token(key=SECRET, sub="ann", aud=given)
    if is_accepted:
        assert authenticate(text, config, NOW).user == "ann"
    else:
        assert reason(text, config) == "audience"
    assert reason(token(key=SECRET), config) == "audience"


def test_a_token_of_another_issuer_is_refused():
    config = guarded(hmac_secret_key=SECRET, issuer="us")
    assert authenticate(token(key=SECRET, sub="ann", iss="us"), config, NOW).user == "ann"
    assert reason(token(key=SECRET, iss="them"), config) == "issuer"
    assert reason(token(key=SECRET), config) == "issuer"


def test_an_anonymous_token_is_refused_with_3507_where_it_is_not_allowed():
    options = TokenConfig(hmac_secret_key=SECRET)
    client = ClientConfig(token=options, disallow_anonymous_connection_tokens=True)
    assert refusal(token(key=SECRET), Config(client=client)) == 3507
    assert authenticate(token(key=SECRET, sub="a"), Config(client=client), NOW).user == "a"


# --- what a connection token says ------------------------------------------------------------------

CONFIG = guarded(hmac_secret_key=SECRET)


def test_expire_at_overrides_the_end_of_the_connection_and_not_of_the_token():
    def claims(**given: Any) -> Claims:
        return authenticate(token(key=SECRET, **given), CONFIG, NOW)

    assert claims(exp=NOW + 5, expire_at=0).expires_at == 0
    assert claims(exp=NOW + 5, expire_at=NOW + 9).expires_at == NOW + 9
    assert claims(expire_at=NOW + 9).expires_at == NOW + 9
    assert refusal(token(key=SECRET, exp=NOW, expire_at=NOW + 9), CONFIG) == 109
    assert refusal(token(key=SECRET, exp=NOW + 9, expire_at=NOW), CONFIG) == 110


def test_channels_subs_and_meta_are_read():
    text = token(
        key=SECRET, sub="ann", meta={"plan": 1.10}, jti="j", iat=5, channels=["b", "a", "b"],
    )  # fmt: skip
    claims = authenticate(text, CONFIG, NOW)
    assert (claims.channels, claims.server_side) == (("b", "a"), ("b", "a"))
    assert (claims.meta, claims.token_id, claims.issued_at) == (b'{"plan":1.1}', "j", 5.0)


def test_subs_have_options_and_replace_channels():
    subs = {
        "a": {"info": {"x": 1}, "b64data": base64.b64encode(b"[1.10]").decode(),
              "override": {"presence": {"value": False}, "force_recovery": {"value": True}}},
        "b": {},
    }  # fmt: skip
    claims = authenticate(token(key=SECRET, channels=["c"], subs=subs), CONFIG, NOW)
    override = ChannelOverride(presence=False, force_recovery=True)
    assert claims.channels == ()
    assert claims.server_side == ("a", "b")
    assert dict(claims.subs) == {
        "a": ServerSubscription(b'{"x":1}', b"[1.10]", override),
        "b": ServerSubscription(),
    }


@pytest.mark.parametrize(
    "claims",
    [
        {"channels": "a"}, {"channels": [1]}, {"subs": ["a"]}, {"subs": {"a": 1}},
        {"subs": {"a": {"b64info": "?"}}}, {"subs": {"a": {"override": 1}}}, {"meta": 1},
        {"meta": [1]}, {"jti": 1}, {"expire_at": "1"}, {"expire_at": True}, {"aud": 1},
    ],
)  # fmt: skip
def test_a_claim_of_another_form_is_refused(claims: dict[str, Any]):
    assert reason(token(key=SECRET, **claims), CONFIG) == "malformed"


# --- the kinds of token ----------------------------------------------------------------------------


def test_a_subscription_token_is_no_connection_token_and_the_other_way_round():
    assert reason(token(key=SECRET, sub="ann", channel="a"), CONFIG) == "kind"
    assert refusal(token(key=SECRET, sub="ann", channel="a"), CONFIG) == 3500
    assert reason(token(key=SECRET, sub="ann"), CONFIG, "subscription") == "no_channel"


def test_subscription_tokens_may_have_keys_of_their_own():
    client = ClientConfig(
        token=TokenConfig(hmac_secret_key=SECRET),
        subscription_token=SubscriptionTokenConfig(enabled=True, hmac_secret_key=OTHER),
    )
    config = Config(client=client)
    assert reason(token(key=OTHER, sub="ann"), config) == "signature"
    assert reason(token(key=SECRET, sub="ann", channel="a"), config, "subscription") == "signature"
    verifier = Authenticator(config, Counters(), clock=lambda: NOW)
    text = token(key=OTHER, sub="ann", channel="a")
    found = verifier.subscription_now(text, "a", "ann", "id")
    assert found is not None
    assert found.channel == "a"
