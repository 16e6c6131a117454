"""What is revoked and blocked is seen by every worker, for its time, over real servers."""

from __future__ import annotations

import asyncio
import time

import pytest

from cluster.auth import Claims
from cluster.errors import StoreError
from cluster.sessions.revocations import Revocations
from tests.contract.stores import RedisBench
from tests.harness.waiting import until_async


def claims(user: str = "ann", token_id: str = "", issued_at: float = 0.0) -> Claims:
    return Claims(user, b"", 0, token_id=token_id, issued_at=issued_at)


async def reason(at: Revocations, wanted: Claims) -> str:
    looking = at.look_up(wanted)
    assert looking is not None
    return await asyncio.wait_for(looking, 10)


async def two_workers(bench: RedisBench) -> list[Revocations]:
    workers = [await bench.worker(listens_to_sessions=False) for _ in range(2)]
    return [Revocations(worker.parts.router, prefix=bench.prefix) for worker in workers]


async def test_nothing_is_revoked_at_first_and_anonymous_users_are_not_looked_up(real: RedisBench):
    one, _ = await two_workers(real)
    assert await reason(one, claims(token_id="t")) == ""
    assert one.look_up(claims(user="")) is None


async def test_a_token_is_revoked_by_its_id_at_all_workers(real: RedisBench):
    await assert_revoked_by_id(real)


async def test_a_token_is_revoked_by_its_id_in_a_redis_cluster(clustered: RedisBench):
    await assert_revoked_by_id(clustered)


async def assert_revoked_by_id(bench: RedisBench) -> None:
    one, two = await two_workers(bench)
    await one.revoke_token("t1", seconds=60)
    for worker in (one, two):
        assert await reason(worker, claims(token_id="t1")) == "revoked"
        assert await reason(worker, claims(user="", token_id="t1")) == "revoked"
        assert await reason(worker, claims(token_id="t2")) == ""
        assert await reason(worker, claims()) == ""


async def test_older_tokens_of_a_user_are_revoked_and_newer_ones_not(real: RedisBench):
    one, two = await two_workers(real)
    now = int(time.time())
    await one.revoke_tokens_of("ann", issued_until=now, seconds=60)
    # The later time stays, whichever comes last.
    await one.revoke_tokens_of("ann", issued_until=now - 100, seconds=60)
    for issued_at, expected in ((0, "revoked"), (now, "revoked"), (now + 1, "")):
        assert await reason(two, claims(issued_at=issued_at)) == expected
    assert await reason(two, claims("bob")) == ""
    without_token = claims()._replace(has_token=False)
    assert await reason(two, without_token) == "", "it has no token that could be refused"
    await one.block_user("ann", seconds=60)
    assert await reason(two, without_token) == "blocked"


async def test_a_user_is_blocked_and_unblocked(real: RedisBench):
    one, two = await two_workers(real)
    await one.block_user("ann", seconds=60)
    assert await reason(two, claims(issued_at=2**40)) == "blocked"
    assert await reason(two, claims("bob")) == ""
    await two.revoke_tokens_of("ann", issued_until=5, seconds=60)
    await two.unblock_user("ann")
    assert await reason(one, claims(issued_at=9)) == ""
    assert await reason(one, claims(issued_at=4)) == "revoked"


async def test_each_revocation_ends_at_its_own_time_and_leaves_nothing(real: RedisBench):
    one, _ = await two_workers(real)
    await one.block_user("ann", seconds=0.3)
    await one.revoke_tokens_of("ann", issued_until=2**40, seconds=1.0)
    await one.revoke_token("t", seconds=0.3)
    assert await reason(one, claims(token_id="t")) == "blocked"

    async def is_unblocked() -> bool:
        return await reason(one, claims(token_id="t")) != "blocked"

    async def is_forgotten() -> bool:
        [server] = real.servers
        kinds = [server.ask("KEYS", f"{{{real.prefix}:{kind}:*") for kind in "ut"]
        return kinds == [[], []]

    await until_async(is_unblocked, 10, "the block has ended")
    await until_async(is_forgotten, 10, "no key is left")


@pytest.mark.parametrize("name", ["}.access", "{ann", "ann:t", "évé", " "])
async def test_no_name_reaches_the_key_of_another(real: RedisBench, name: str):
    one, _ = await two_workers(real)
    await one.block_user(name, seconds=60)
    await one.revoke_token(name, seconds=60)
    assert await reason(one, claims(name)) == "blocked"
    assert await reason(one, claims("ann", "ann")) == ""


async def test_a_store_that_is_away_is_an_error(own: RedisBench):
    one, _ = await two_workers(own)
    own.servers[0].stop()
    with pytest.raises(StoreError):
        await reason(one, claims(token_id="t"))
