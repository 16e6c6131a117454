"""When a JSON Web Key Set is read again, how long it is kept, and how long it is left alone after a failure."""

from __future__ import annotations

import asyncio

import pytest

from cluster.auth.claims import TokenRefused
from cluster.auth.key_set import KeySet
from cluster.metrics.counters import Counters
from tests.unit.token_making import jwk, jwks, rsa_key

HOUR = 3600.0
DAY = 86_400.0
#: docs/how-to/tokens.md: a second, doubled with each failure, a minute at most.
WAITS = [1, 2, 4, 8, 16, 32, 60, 60]


class Publisher:
    """A source of a set, and the clock by which it is read."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.text: bytes | None = jwks(jwk(rsa_key(), "old"), jwk(rsa_key(2048, 1), "new"))
        self.reads = 0
        self.keys = KeySet("the set", self._read, Counters(), clock=lambda: self.now)

    async def _read(self) -> bytes:
        self.reads += 1
        if self.text is None:
            raise OSError("unreachable")
        return self.text

    async def settle(self) -> None:
        """Let a read that has begun end."""
        while self.keys._reading is not None:
            await asyncio.sleep(0)

    async def reason(self, name: str) -> str:
        try:
            await self.keys.find(name)
        except TokenRefused as refused:
            return str(refused)
        return ""


async def test_a_key_that_was_withdrawn_is_gone_after_an_hour_whichever_keys_tokens_name():
    publisher = Publisher()
    assert await publisher.reason("new") == ""
    publisher.text = jwks(jwk(rsa_key(2048, 1), "new"))
    publisher.now += HOUR - 1
    assert publisher.keys.get("old")
    await publisher.settle()
    assert publisher.reads == 1
    publisher.now += 2
    # This one is answered from the old set; the read goes on behind it.
    assert publisher.keys.get("new")
    await publisher.settle()
    assert publisher.reads == 2
    assert not publisher.keys.get("old")
    assert publisher.keys.get("new")


async def test_a_set_that_cannot_be_read_is_used_for_a_day_and_no_longer():
    publisher = Publisher()
    assert await publisher.reason("old") == ""
    publisher.text = None
    publisher.now += DAY - 1
    assert publisher.keys.get("old")
    await publisher.settle()
    publisher.now += 2
    assert not publisher.keys.get("old")
    assert await publisher.reason("old") == "keys_unavailable"
    publisher.now += 60
    publisher.text = jwks(jwk(rsa_key(), "old"))
    assert await publisher.reason("old") == ""
    assert publisher.keys.get("old")


@pytest.mark.parametrize("failures", range(1, len(WAITS) + 1))
async def test_after_each_failure_the_set_is_left_alone_for_longer(failures: int):
    publisher = Publisher()
    publisher.text = None
    for wait in WAITS[: failures - 1]:
        assert await publisher.reason("any") == "keys_unavailable"
        publisher.now += wait
    assert await publisher.reason("any") == "keys_unavailable"
    assert publisher.reads == failures
    wait = WAITS[failures - 1]
    # Half of it to all of it, by chance, so that workers do not ask together.
    publisher.now += wait * 0.49
    assert await publisher.reason("any") == "keys_unavailable"
    assert publisher.reads == failures
    publisher.now += wait * 0.52
    assert await publisher.reason("any") == "keys_unavailable"
    assert publisher.reads == failures + 1


async def test_a_success_ends_the_waiting():
    publisher = Publisher()
    publisher.text = None
    for wait in WAITS[:5]:
        assert await publisher.reason("any") == "keys_unavailable"
        publisher.now += wait
    publisher.text = jwks(jwk(rsa_key(), "old"))
    assert await publisher.reason("old") == ""
    publisher.text = None
    publisher.now += 11
    assert await publisher.reason("unknown") == "keys_unavailable"
    publisher.now += 1
    assert await publisher.reason("unknown") == "keys_unavailable"
    assert publisher.reads == 8
