"""A token that is revoked, or a user that is blocked, while a connect or a refresh is in progress."""

from __future__ import annotations

import asyncio
import time

import pytest

from cluster.auth import Claims
from cluster.errors import StoreUnavailable
from cluster.node.user_commands import DisconnectToken, DisconnectUser, UserCommand
from tests.harness.waiting import until
from tests.unit.local_worker import Caller, LocalWorker, ask
from tests.unit.test_subscription_tokens import config, token

REVOKED = DisconnectToken(token_id="t1", code=3500, reason="invalid token")
BLOCKED = DisconnectUser(user="ann", code=3507, reason="permission denied")


class Lookups:
    """Stands for `Revocations`: the test answers each look-up."""

    def __init__(self, worker: LocalWorker) -> None:
        self.asked: list[asyncio.Future[str]] = []
        worker.node._revocations = self
        worker.node.refreshes._revocations = self

    def look_up(self, claims: Claims) -> asyncio.Future[str]:
        answer = asyncio.get_running_loop().create_future()
        self.asked.append(answer)
        return answer

    async def next(self, count: int) -> asyncio.Future[str]:
        await until(lambda: len(self.asked) >= count, 10, f"{count} look-ups are asked for")
        return self.asked[count - 1]


async def tell(worker: LocalWorker, command: UserCommand | DisconnectToken) -> None:
    """Tell all workers, and wait until this one has done it."""
    before = worker.node.refreshes.told
    kind = "disconnect_token" if isinstance(command, DisconnectToken) else "disconnect"
    await worker.control.tell(kind, command)
    await until(lambda: worker.node.refreshes.told > before, 10, "the worker is told")


async def connecting(worker: LocalWorker) -> Caller:
    caller = await worker.caller()
    text = token(sub="ann", jti="t1", exp=int(time.time()) + 600)
    caller.say({"id": 1, "connect": {"token": text}})
    return caller


@pytest.mark.parametrize(
    ("command", "reason", "code"), [(REVOKED, "revoked", 3500), (BLOCKED, "blocked", 3507)]
)
async def test_a_connect_in_progress_is_closed_too(
    command: UserCommand | DisconnectToken, reason: str, code: int
):
    async with LocalWorker(config()).open() as worker:
        lookups = Lookups(worker)
        caller = await connecting(worker)
        first = await lookups.next(1)
        # The look-up has read the store before the revocation, and its answer comes after it.
        await tell(worker, command)
        first.set_result("")
        (await lookups.next(2)).set_result(reason)
        assert (await caller.closed())[0] == code
        assert worker.node.clients.count == 0


async def test_a_connect_in_progress_stays_if_another_user_was_blocked():
    async with LocalWorker(config()).open() as worker:
        lookups = Lookups(worker)
        caller = await connecting(worker)
        first = await lookups.next(1)
        await tell(worker, DisconnectUser(user="bob", code=3507, reason="permission denied"))
        first.set_result("")
        (await lookups.next(2)).set_result("")
        assert "connect" in await caller.reply(1)
        assert "unsubscribe" in await ask(caller, "unsubscribe", channel="a")
        assert len(lookups.asked) == 2


async def test_a_client_of_which_it_cannot_be_known_connects_again():
    async with LocalWorker(config()).open() as worker:
        lookups = Lookups(worker)
        caller = await connecting(worker)
        first = await lookups.next(1)
        await tell(worker, REVOKED)
        first.set_result("")
        (await lookups.next(2)).set_exception(StoreUnavailable("away"))
        assert (await caller.closed())[0] == 3004
        assert worker.counters.errors["store"] == 1


async def test_nothing_is_looked_up_again_if_nothing_was_revoked():
    async with LocalWorker(config()).open() as worker:
        lookups = Lookups(worker)
        caller = await connecting(worker)
        (await lookups.next(1)).set_result("")
        assert "connect" in await caller.reply(1)
        assert "unsubscribe" in await ask(caller, "unsubscribe", channel="a")
        assert len(lookups.asked) == 1


async def test_a_refresh_in_progress_is_refused_too():
    async with LocalWorker(config()).open() as worker:
        lookups = Lookups(worker)
        caller = await connecting(worker)
        (await lookups.next(1)).set_result("")
        await caller.reply(1)
        text = token(sub="ann", jti="t2", exp=int(time.time()) + 600)
        caller.say({"id": 2, "refresh": {"token": text}})
        second = await lookups.next(2)
        await tell(worker, DisconnectToken(token_id="t2", code=3500, reason="invalid token"))
        second.set_result("")
        (await lookups.next(3)).set_result("revoked")
        assert (await caller.closed())[0] == 3500
        assert worker.counters.refresh_failures["connection"] == 1
