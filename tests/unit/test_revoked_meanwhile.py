"""Tokens that are revoked, and users that are blocked, while connections are open or in the making."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import cluster
from cluster.auth import Claims
from cluster.config import TokenConfig
from cluster.errors import StoreUnavailable
from cluster.node.refreshes import RevokedTokens
from cluster.node.user_commands import DisconnectToken, DisconnectUser, UserCommand
from tests.harness.waiting import until
from tests.unit.local_worker import Caller, LocalWorker, ask
from tests.unit.test_proxies import a_backend, worker_at
from tests.unit.test_subscription_tokens import config, token

REVOKED = DisconnectToken(token_id="t1", code=3500, reason="invalid token")
BLOCKED = DisconnectUser(user="ann", code=3507, reason="permission denied")


def look_up_at(worker: LocalWorker, revocations: RevokedTokens) -> None:
    """Give a worker something that stands for `Revocations`."""
    worker.node._revocations = revocations
    worker.node.refreshes._revocations = revocations


class Lookups:
    """The test answers each look-up."""

    def __init__(self, worker: LocalWorker) -> None:
        self.asked: list[asyncio.Future[str]] = []
        look_up_at(worker, self)

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


# --- clients without a token ---------------------------------------------------------------------


class Invalidated:
    """All tokens of all users are revoked, and the users that a test says are blocked."""

    def __init__(self) -> None:
        self.blocked: set[str] = set()

    def look_up(self, claims: Claims) -> asyncio.Future[str]:
        answer = asyncio.get_running_loop().create_future()
        is_revoked = claims.has_token
        answer.set_result(
            "blocked" if claims.user in self.blocked else "revoked" if is_revoked else ""
        )
        return answer


INVALIDATED = DisconnectUser(
    user="ann", code=3500, reason="invalid token", issued_until=time.time() + 600
)


def named_without_token() -> cluster.Application:
    app = cluster.Application()

    @app.connecting
    async def connecting(event: cluster.Connecting) -> cluster.ConnectAnswer | None:
        return None if event.has_token else cluster.ConnectAnswer(user="ann")

    return app


async def assert_only_tokens_are_invalidated(worker: LocalWorker, opened: Caller) -> None:
    """The client without a token that is open stays, and the next one connects; a block closes both."""
    text = token(sub="ann", exp=int(time.time()) + 600)
    await tell(worker, INVALIDATED)
    assert "unsubscribe" in await ask(opened, "unsubscribe", channel="a")
    revocations = Invalidated()
    look_up_at(worker, revocations)
    later = await worker.caller()
    assert "client" in await later.connect()
    refused = await worker.caller()
    refused.say({"id": 1, "connect": {"token": text}})
    assert (await refused.closed())[0] == 3500

    revocations.blocked.add("ann")
    await tell(worker, BLOCKED)
    for caller in (opened, later):
        assert (await caller.closed())[0] == 3507
    blocked = await worker.caller()
    blocked.say({"id": 1, "connect": {}})
    assert (await blocked.closed())[0] == 3507


async def test_a_client_that_an_application_knows_without_a_token_is_not_invalidated():
    async with LocalWorker(config(), application=named_without_token()).open() as worker:
        opened = await worker.caller()
        await opened.connect()
        with_token = await connecting(worker)
        await with_token.reply(1)
        await assert_only_tokens_are_invalidated(worker, opened)
        assert (await with_token.closed())[0] == 3500


async def test_a_client_that_a_proxy_knows_without_a_token_is_not_invalidated():
    async with a_backend() as backend, worker_at(backend) as worker:
        backend.answers["connect"] = {"result": {"user": "ann"}}
        opened = await worker.caller()
        await opened.connect()
        await assert_only_tokens_are_invalidated(worker, opened)


@pytest.mark.parametrize("has_token", [True, False])
async def test_a_client_of_an_insecure_worker_that_an_application_names_is_not_invalidated(
    has_token: bool,
):
    """There a token is not read."""
    app = cluster.Application()
    app.connecting(lambda _: cluster.ConnectAnswer(user="ann"))
    options: dict[str, Any] = {"insecure": True, "token": TokenConfig()}
    async with LocalWorker(config(**options), application=app).open() as worker:
        look_up_at(worker, Invalidated())
        caller = await worker.caller()
        assert "client" in await caller.connect(token="any" if has_token else "")
        await tell(worker, INVALIDATED)
        assert "unsubscribe" in await ask(caller, "unsubscribe", channel="a")


# --- refreshes by the server, or by a handler ----------------------------------------------------


def refreshed_by_server(asked: list[str]) -> cluster.Application:
    """Its connections have expired at once, and its handler extends each for an hour."""
    app = cluster.Application()

    @app.connecting
    async def connecting(event: cluster.Connecting) -> cluster.ConnectAnswer:
        soon = int(time.time()) + 1
        return cluster.ConnectAnswer(user="ann", expires_at=soon, refreshed_by_server=True)

    @app.refreshing
    def refreshing(
        client: cluster.ApplicationClient, event: cluster.Refreshing
    ) -> cluster.RefreshAnswer:
        asked.append(client.user)
        return cluster.RefreshAnswer(int(time.time()) + 3600)

    return app


async def test_a_user_who_is_blocked_is_not_extended_by_the_server():
    """The command that closes the user's connections has not reached this worker."""
    asked: list[str] = []
    async with LocalWorker(config(), application=refreshed_by_server(asked)).open() as worker:
        lookups = Lookups(worker)
        caller = await worker.caller()
        caller.say({"id": 1, "connect": {}})
        (await lookups.next(1)).set_result("")
        await caller.reply(1)
        (await lookups.next(2)).set_result("blocked")
        assert (await caller.closed())[0] == 3507
        assert asked == []
        assert worker.counters.refresh_failures["connection"] == 1


@pytest.mark.parametrize("is_back", [True, False])
async def test_a_connection_of_which_it_cannot_be_known_is_asked_for_until_the_delay_is_over(
    is_back: bool,
):
    asked: list[str] = []
    settings = config(expired_close_delay=60.0 if is_back else 0.0)
    async with LocalWorker(settings, application=refreshed_by_server(asked)).open() as worker:
        lookups = Lookups(worker)
        caller = await worker.caller()
        caller.say({"id": 1, "connect": {}})
        (await lookups.next(1)).set_result("")
        await caller.reply(1)
        (await lookups.next(2)).set_exception(StoreUnavailable("away"))
        if is_back:
            (await lookups.next(3)).set_result("")
            await until(lambda: asked == ["ann"], 10, "the application is asked")
            [client] = worker.node.clients.of("ann")
            later = time.time() + 1800
            await until(lambda: client.connection.expires_at > later, 10, "it is extended")
        else:
            assert (await caller.closed())[0] == 3005
            assert asked == []
        assert worker.counters.errors["store"] == 1


async def test_a_user_who_is_blocked_is_not_extended_by_a_handler_that_accepts_the_client_s_text():
    app = named_without_token()
    app.refreshing(lambda *_: cluster.RefreshAnswer(int(time.time()) + 3600))
    async with LocalWorker(config(), application=app).open() as worker:
        caller = await connecting(worker)
        await caller.reply(1)
        revocations = Invalidated()
        revocations.blocked.add("ann")
        look_up_at(worker, revocations)
        caller.say({"id": 2, "refresh": {"token": "of another kind"}})
        assert (await caller.closed())[0] == 3507
        assert worker.counters.refresh_failures["connection"] == 1
