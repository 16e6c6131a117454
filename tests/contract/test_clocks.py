"""Machines of one cluster whose clocks differ: what they share is measured by the store's clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from cluster.api.access_methods import AccessMethods
from cluster.auth import Claims
from cluster.errors import BAD_REQUEST, ClientError
from cluster.metrics.counters import Counters
from cluster.node.control import Control
from cluster.presence import ADD, PresenceStats
from cluster.sessions.revocations import Revocations
from cluster.sessions.user_connections import UserConnections
from tests.contract.stores import RedisBench
from tests.contract.test_presence_store import change, one, stats
from tests.harness.waiting import until_async

HOUR = 3600.0


@contextmanager
def clock_is_off(offset: float) -> Iterator[None]:
    """What runs within runs on a machine whose clock is off by so many seconds."""
    now = time.time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: now() + offset)
        yield


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
async def test_a_machine_whose_clock_is_an_hour_off_ends_no_session_and_keeps_none(
    real: RedisBench, offset: float
):
    worker, other = await real.worker(), await real.worker()
    session = await worker.sessions.attach("ann", None, "h")
    before = await real.statistics()
    with clock_is_off(offset):
        assert (await real.statistics())["expired"] == before["expired"]
        resumed = await other.sessions.attach("ann", session.id, "g")
        assert resumed.is_resumed
        await other.sessions.renew()
        await other.sessions.update(session.id, state=1)
        other.sessions.detach(resumed, "g", may_end=False)
        await asyncio.wait_for(other.sessions.flush(), 10)
    assert (await real.statistics())["expired"] == before["expired"]
    worker.sessions.detach(session, "h", may_end=False)
    await asyncio.wait_for(worker.sessions.flush(), 10)
    third = await real.worker()
    assert (await third.sessions.attach("ann", session.id, "h")).is_resumed


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
async def test_a_machine_whose_clock_is_an_hour_off_counts_the_connections_of_a_user_as_all_do(
    real: RedisBench, offset: float
):
    workers = [await real.worker(listens_to_sessions=False) for _ in range(2)]
    right, wrong = (
        UserConnections(worker.parts.router, prefix=real.prefix, limit=2) for worker in workers
    )
    assert await right.enter("eve", "1")
    with clock_is_off(offset):
        assert await wrong.enter("eve", "2")
        assert not await wrong.enter("eve", "3")
    assert not await right.enter("eve", "4")
    with clock_is_off(offset):
        await wrong.renew()
    assert not await right.enter("eve", "5")
    await right.renew()
    with clock_is_off(offset):
        assert not await wrong.enter("eve", "6")
        wrong.leave("eve", "2")
        assert await wrong.enter("eve", "7")
    assert not await right.enter("eve", "8")


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
async def test_a_machine_whose_clock_is_an_hour_off_removes_no_member_and_keeps_none(
    real: RedisBench, offset: float
):
    right, wrong = await real.worker(presence_ttl=60.0), await real.worker(presence_ttl=0.2)
    await change(right, one(ADD, "ann", "1"))
    with clock_is_off(offset):
        await change(wrong, one(ADD, "bob", "2"))

        async def has_left() -> bool:
            return (await stats(wrong)).clients == 1

        await until_async(has_left, 10, "the entry of the other worker alone has expired")
    assert await stats(right) == PresenceStats(1, 1)


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
async def test_a_machine_whose_clock_is_an_hour_off_ends_no_block_or_revocation_and_extends_none(
    real: RedisBench, offset: float
):
    workers = [await real.worker(listens_to_sessions=False) for _ in range(2)]
    right, wrong = (Revocations(worker.parts.router, prefix=real.prefix) for worker in workers)
    await right.block_user("ann", seconds=1800)
    await right.revoke_tokens_of("bob", issued_until=100, seconds=1800)
    await right.revoke_token("t1", seconds=1800)
    # A block that has ended, of a user of whom a revocation lasts.
    await right.revoke_tokens_of("eve", issued_until=100, seconds=1800)
    await right.block_user("eve", seconds=0.1)

    async def is_unblocked() -> bool:
        return await reason(right, "eve") == "revoked"

    await until_async(is_unblocked, 10, "the block has ended")
    with clock_is_off(offset):
        assert await reason(wrong, "ann") == "blocked"
        assert await reason(wrong, "bob") == "revoked"
        assert await reason(wrong, "eve") == "revoked"
        assert await reason(wrong, "", "t1") == "revoked"
        assert await reason(wrong, "dan", "t2") == ""


async def reason(at: Revocations, user: str, token_id: str = "", *, issued_at: float = 50.0) -> str:
    looking = at.look_up(Claims(user, b"", 0, token_id=token_id, issued_at=issued_at))
    assert looking is not None
    return await asyncio.wait_for(looking, 10)


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
async def test_until_when_an_api_request_blocks_is_not_for_a_machine_whose_clock_is_off_to_say(
    real: RedisBench, offset: float
):
    access, _ = await api_of(real)
    now = int(time.time())
    with clock_is_off(offset):
        await access.block_user({"user": "ann", "expire_at": now + 1800})
        for method, who in (("block_user", "user"), ("revoke_token", "uid")):
            with pytest.raises(ClientError) as refused:
                await getattr(access, method)({who: "bob", "expire_at": now - 60})
            assert refused.value.code == BAD_REQUEST.code
    [server] = real.servers
    assert int(server.ask("HGET", f"{{{real.prefix}:u:ann}}.access", "blocked_end")) == 1000 * (
        now + 1800
    )
    assert server.ask("KEYS", f"{{{real.prefix}:?:bob*") == []


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
async def test_the_tokens_revoked_without_a_time_are_those_issued_until_now_by_the_stores_clock(
    real: RedisBench, offset: float
):
    access, told = await api_of(real)
    now = int(time.time())
    with clock_is_off(offset):
        await access.invalidate_user_tokens({"user": "ann"})
    worker = await real.worker(listens_to_sessions=False)
    revocations = Revocations(worker.parts.router, prefix=real.prefix)
    assert await reason(revocations, "ann", issued_at=now - 1800.0) == "revoked"
    assert await reason(revocations, "ann", issued_at=now + 1800.0) == ""
    [command] = told.commands
    assert now <= command.issued_until < now + 1800


class Told:
    """Records what all workers are told."""

    def __init__(self) -> None:
        self.commands: list[Any] = []

    async def tell(self, kind: str, command: Any) -> None:
        self.commands.append(command)


async def api_of(bench: RedisBench) -> tuple[AccessMethods, Told]:
    worker, told = await bench.worker(listens_to_sessions=False), Told()
    revocations = Revocations(worker.parts.router, prefix=bench.prefix)
    return AccessMethods(cast(Control, told), revocations, Counters()), told
