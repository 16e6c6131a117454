"""A connect that is given up while it waits for the store leaves neither a session nor a user's place."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import pytest

from cluster.auth import Claims
from cluster.errors import StoreUnavailable
from cluster.sessions import Session
from tests.harness.waiting import until
from tests.unit.local_worker import LocalWorker, changed, configured

WITHIN = 10.0


class Users:
    """Counts the connections of users, as `client.user_connection_limit` has it; the test lets them in."""

    is_on = True

    def __init__(self) -> None:
        self.may_enter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.asked = 0
        self.entered: set[str] = set()
        self.left: list[str] = []
        self.afterwards: Callable[[], object] = lambda: None

    async def enter(self, user: str, connection: str) -> bool:
        self.asked += 1
        is_in = await asyncio.shield(self.may_enter)
        self.entered.add(connection)
        asyncio.get_running_loop().call_soon(self.afterwards)
        return is_in

    def leave(self, user: str, connection: str) -> None:
        self.entered.discard(connection)
        self.left.append(connection)


def worker_of(timeout: float) -> tuple[LocalWorker, Users]:
    config = configured()
    broker = dataclasses.replace(config.broker, timeout=timeout)
    worker, users = LocalWorker(changed(config, broker=broker)), Users()
    worker.node._users = users

    async def claims(token: str) -> Claims:
        return Claims("ann", b"", 0)

    worker.node.authenticator.connection = claims  # type: ignore[method-assign]
    return worker, users


async def test_a_connect_whose_user_cannot_be_counted_in_time_gives_its_session_back():
    worker, users = worker_of(timeout=0.2)
    async with worker.open():
        for _ in range(5):
            caller = await worker.caller()
            caller.say({"id": 1, "connect": {}})
            assert (await caller.reply(1))["error"]["code"] == 100
        assert (users.asked, len(users.left), users.entered) == (5, 5, set())
        assert worker.sessions.held == {}
        assert worker.store.sessions == {}


async def test_a_session_that_was_resumed_by_such_a_connect_is_kept_for_its_next():
    worker, users = worker_of(timeout=0.2)
    async with worker.open():
        made = await worker.sessions.attach("ann", None, "h")
        worker.sessions.detach(made, "h", may_end=False)
        caller = await worker.caller()
        caller.say({"id": 1, "connect": {"data": {"session": made.id}}})
        assert (await caller.reply(1))["error"]["code"] == 100
        assert worker.sessions.held == {}
        assert worker.store.sessions[made.id].attached == 0
        users.may_enter.set_result(True)
        connected = await (await worker.caller()).connect(data={"session": made.id})
        assert connected["data"]["session"]["resumed"] is True


async def test_a_connect_that_is_cancelled_as_both_answers_are_there_keeps_nothing():
    worker, users = worker_of(timeout=WITHIN)
    async with worker.open():
        client = await _client(worker)
        entering = asyncio.ensure_future(worker.node._enter("ann", None, client))
        await until(lambda: bool(worker.sessions.held), WITHIN, "the session is attached")
        # In the turn between the second answer and the next step of the connect.
        users.afterwards = entering.cancel
        users.may_enter.set_result(True)
        with pytest.raises(asyncio.CancelledError):
            await entering
        assert (worker.sessions.held, worker.store.sessions, users.entered) == ({}, {}, set())


@pytest.mark.parametrize("failure", [StoreUnavailable("away"), RuntimeError("broken")])
async def test_whichever_of_the_two_fails_the_other_is_undone(failure: Exception):
    worker, users = worker_of(timeout=WITHIN)
    async with worker.open():
        client = await _client(worker)
        users.may_enter.set_exception(failure)
        with pytest.raises(type(failure)):
            await worker.node._enter("ann", None, client)
        assert (worker.sessions.held, worker.store.sessions) == ({}, {})
        users.may_enter = asyncio.get_running_loop().create_future()
        users.may_enter.set_result(True)

        async def attach(user: str, wanted: str | None, holder: object) -> Session:
            raise failure

        worker.sessions.attach = attach  # type: ignore[method-assign, assignment]
        with pytest.raises(type(failure)):
            await worker.node._enter("ann", None, client)
        assert users.entered == set()


async def _client(worker: LocalWorker):
    """A client at the worker that has not connected."""
    await worker.caller()
    [client] = worker.server.clients
    return client
