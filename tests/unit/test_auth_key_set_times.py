"""When a JSON Web Key Set is read again, and how long its keys are used: by a clock that the test moves."""

from __future__ import annotations

import pytest

from cluster.auth import Authenticator
from cluster.auth.claims import TokenRefused
from cluster.auth.key_set import KeySet
from cluster.config import ClientConfig, Config, TokenConfig
from cluster.errors import ClientError
from cluster.metrics.counters import Counters
from tests.harness.waiting import until
from tests.unit.token_making import jwk, jwks, made, rsa_key

#: So many sets that each has waited as long by chance is out of the question.
SETS = 40
HOUR, DAY = 3600.0, 86_400.0


class Published:
    """A key set at its source, and the clock; without a text it cannot be read."""

    def __init__(self, text: bytes = b"") -> None:
        self.text = text
        self.now = 1000.0
        self.reads = 0

    async def read(self) -> bytes:
        self.reads += 1
        if not self.text:
            raise OSError("it is away")
        return self.text

    def clock(self) -> float:
        return self.now

    def key_set(self) -> KeySet:
        return KeySet("keys", self.read, Counters(), clock=self.clock)


async def looked_for(one: KeySet, name: str = "k") -> str:
    """Why a key was not found; "" if it was."""
    try:
        await one.find(name)
    except TokenRefused as refused:
        return refused.reason
    return ""


async def test_after_failures_the_waits_double_to_a_minute_and_each_is_drawn_from_its_upper_half():
    published = Published()
    sets = [published.key_set() for _ in range(SETS)]
    for number, wait in enumerate((1, 2, 4, 8, 16, 32, 60, 60, 60), 1):
        assert {await looked_for(one) for one in sets} == {"keys_unavailable"}
        assert published.reads == number * SETS
        waits = [one._next_at - published.now for one in sets]
        assert wait / 2 <= min(waits) < wait * 0.75 < max(waits) <= wait
        published.now += wait * 0.499
        assert {await looked_for(one) for one in sets} == {"keys_unavailable"}
        assert published.reads == number * SETS, "too early for another read"
        published.now += wait * 0.502


async def test_after_a_read_the_first_wait_is_a_second_again():
    published = Published()
    one = published.key_set()
    for _ in range(9):
        assert await looked_for(one) == "keys_unavailable"
        published.now += 60
    published.text = jwks(jwk(rsa_key(), "k"))
    assert await looked_for(one) == ""
    published.text = b""
    published.now += 60
    assert await looked_for(one, "other") == "keys_unavailable"
    published.text = jwks(jwk(rsa_key(), "other"))
    published.now += 1.001
    assert await looked_for(one, "other") == ""


async def test_a_set_is_read_for_unknown_keys_once_in_ten_seconds():
    published = Published(jwks(jwk(rsa_key(), "k")))
    one = published.key_set()
    assert await looked_for(one, "new") == "unknown_key"
    published.now += 9.999
    assert await looked_for(one, "new") == "keys_unavailable"
    assert published.reads == 1
    published.now += 0.002
    assert await looked_for(one, "new") == "unknown_key"
    assert published.reads == 2


async def test_after_an_hour_a_removed_key_goes_though_no_unknown_key_was_asked_for():
    published = Published(jwks(jwk(rsa_key(), "k"), jwk(rsa_key(2048, 1), "removed")))
    one = published.key_set()
    assert await looked_for(one, "removed") == ""
    published.text = jwks(jwk(rsa_key(), "k"))
    published.now += HOUR
    assert one.get("removed")
    assert one._reading is None, "it is not old enough yet"
    published.now += 0.001
    # The token that notices does not wait.
    assert one.get("removed")
    await until(lambda: not one.get("removed"), 10, "the set was read again")
    assert one.get("k")
    assert published.reads == 2


async def test_the_keys_of_a_set_that_cannot_be_read_are_used_for_a_day_and_then_refused_with_100(
    monkeypatch: pytest.MonkeyPatch,
):
    published = Published(jwks(jwk(rsa_key(), "k")))
    one = published.key_set()
    monkeypatch.setattr(KeySet, "of", lambda options, counters: one)
    options = TokenConfig(jwks_public_endpoint="http://127.0.0.1:1/keys")
    verifier = Authenticator(Config(client=ClientConfig(token=options)), Counters())
    text = made("RS256", rsa_key(), kid="k", sub="ann")
    assert (await verifier.connection(text)).user == "ann"
    published.text = b""
    for age in (HOUR + 1, DAY / 2, DAY):
        published.now = 1000.0 + age
        assert (await verifier.connection(text)).user == "ann", age
        await until(lambda: one._reading is None, 10, "the read has failed")
    published.now = 1000.0 + DAY + 0.001
    with pytest.raises(ClientError) as refused:
        await verifier.connection(text)
    assert refused.value.code == 100
    published.text = jwks(jwk(rsa_key(), "k"))
    published.now += 60
    assert (await verifier.connection(text)).user == "ann"
