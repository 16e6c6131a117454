"""What the server API gives to sessions and takes from them: in the order of the commands, and counted if not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from cluster.config import Config
from cluster.errors import StoreUnavailable
from cluster.node import session_channels
from cluster.node.session_channels import ChannelChange, SessionChannels
from cluster.node.user_commands import SubscribeUser, UnsubscribeUser
from cluster.sessions import Session
from tests.harness.waiting import until
from tests.unit.api_workers import api_config, call, connected, two_workers
from tests.unit.local_worker import LocalWorker, changed, configured
from tests.unit.test_server_api_commands import documents, send

WITHIN = 10.0


class Gate:
    """Updates of sessions wait until the test opens it, as those of a store that is far away do."""

    def __init__(self, worker: LocalWorker) -> None:
        self._open = asyncio.Event()
        self.asked = self.done = 0
        real = worker.sessions.update

        async def update(*args: Any, **options: Any) -> int:
            self.asked += 1
            await self._open.wait()
            try:
                return await real(*args, **options)
            finally:
                self.done += 1

        worker.sessions.update = update  # type: ignore[method-assign]

    def open(self) -> None:
        self._open.set()


def limited(count: int) -> Config:
    base = api_config()
    return changed(base, client=configured(channel_limit=count).client)


def kept(one: LocalWorker, session: str) -> tuple[str, ...]:
    return one.store.sessions[session].session.channels


def has(one: LocalWorker) -> set[str]:
    [client] = one.node.clients
    return set(client.connection.channels)


async def keeps(one: LocalWorker, session: str, *channels: str) -> None:
    """Wait until a session and its connection have just these channels."""

    def fit() -> bool:
        return set(kept(one, session)) == has(one) == set(channels) and settled(one)

    await until(fit, WITHIN, f"it has {channels}")


def settled(one: LocalWorker) -> bool:
    """Whether the workers know all that the store has."""
    records = one.store.sessions
    return all(
        held.version == records[held.id].session.version
        for worker in one.store.holders
        for held in worker.held.values()
    )


async def test_a_session_at_its_limit_can_lose_a_channel_and_does_not_get_it_back():
    async with two_workers(limited(2)) as (one, _):
        first, _, session = await connected(one)
        for channel in ("kept:a", "kept:b"):
            await call(one, "subscribe", user="", channel=channel)
        await keeps(one, session, "kept:a", "kept:b")
        await call(one, "unsubscribe", user="", channel="kept:b")
        await keeps(one, session, "kept:a")
        assert first.wire.transport is not None
        first.wire.transport.abort()
        await until(lambda: not one.node.clients.count, WITHIN, "it has gone")
        again = await one.caller()
        result = await again.connect(data={"session": session})
        assert list(result["subs"]) == ["kept:a"]


async def test_a_channel_above_the_limit_of_a_session_is_counted():
    async with two_workers(limited(1)) as (one, _):
        _, _, session = await connected(one)
        await call(one, "subscribe", user="", channel="kept:a")
        await keeps(one, session, "kept:a")
        before = one.counters.client_errors["106"]
        await call(one, "subscribe", user="", channel="kept:b")
        # That of the connection, and that of its session.
        await until(
            lambda: one.counters.client_errors["106"] == before + 2, WITHIN, "both are counted"
        )
        assert kept(one, session) == ("kept:a",)


@pytest.mark.parametrize("methods", [("subscribe", "unsubscribe"), ("unsubscribe", "subscribe")])
async def test_the_last_of_two_commands_in_one_body_is_what_a_session_keeps(
    methods: tuple[str, str],
):
    async with two_workers() as (one, _):
        _, _, session = await connected(one)
        if methods[0] == "unsubscribe":
            await call(one, "subscribe", user="", channel="kept:a")
            await keeps(one, session, "kept:a")
        gate = Gate(one)
        params = {"user": "", "channel": "kept:a"}
        lines = [json.dumps({"method": method, "params": params}) for method in methods]
        replies = documents(await send(one, "\n".join(lines).encode()))
        assert [set(reply) for reply in replies] == [{"result"}] * 2
        await until(lambda: gate.asked > 0, WITHIN, "the first is being kept")
        await until(lambda: one.counters.control["received"] >= 2, WITHIN, "both have come")
        marker = one.counters.control["received"] + 1
        # It runs after both.
        await call(one, "unsubscribe", user="nobody", channel="kept:a")
        await until(lambda: one.counters.control["received"] == marker, WITHIN, "and so has it")
        gate.open()
        last = ("kept:a",) if methods[1] == "subscribe" else ()
        await until(lambda: gate.done == gate.asked and gate.done > 0, WITHIN, "it is written")
        await keeps(one, session, *last)
        assert one.counters.errors["store"] == 0


async def test_a_change_is_made_upon_what_was_written_and_not_yet_told():
    async with two_workers() as (one, _):
        _, _, session = await connected(one)
        told: list[tuple[str, Session]] = []
        real = one.sessions.changed
        one.sessions.changed = lambda *news: told.append(news)  # type: ignore[method-assign]
        await call(one, "subscribe", user="", channel="kept:a")
        await until(lambda: kept(one, session) == ("kept:a",), WITHIN, "it is written")
        await until(lambda: bool(told), WITHIN, "and told, but the worker has not heard it")
        await call(one, "unsubscribe", user="", channel="kept:a")
        await until(lambda: kept(one, session) == (), WITHIN, "it is taken away all the same")
        one.sessions.changed = real  # type: ignore[method-assign]
        await until(lambda: len(told) == 2, WITHIN, "both are told")
        for news in told:
            real(*news)
        await keeps(one, session)


async def test_workers_that_share_a_session_end_with_the_last_command():
    async with two_workers() as (one, two):
        _, _, session = await connected(one)
        await connected(two, session)
        for _ in range(20):
            for kind in (SubscribeUser, UnsubscribeUser):
                await one.control.tell(kind.__name__.lower()[:-4], kind(user="", channel="kept:a"))
        await one.control.tell("subscribe", SubscribeUser(user="", channel="kept:b"))
        await keeps(one, session, "kept:b")
        await keeps(two, session, "kept:b")


class Alone:
    """The channels of sessions without a worker."""

    def __init__(self, worker: LocalWorker, update: Callable[..., Any]) -> None:
        self.worker = worker
        worker.sessions.update = update  # type: ignore[method-assign]
        self.channels = SessionChannels(
            worker.sessions, worker.node.run, worker.counters, channel_limit=5000
        )


async def test_changes_that_wait_for_the_store_are_bounded_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(session_channels, "MOST_WAITING", 10)
    monkeypatch.setattr(session_channels, "SEEN_SECONDS", 0.01)
    goes_on = asyncio.Event()
    written: list[tuple[str, ...]] = []

    async def update(_: str, *, channels: tuple[str, ...], expected_version: int) -> int:
        await goes_on.wait()
        written.append(channels)
        return expected_version + 1

    async with LocalWorker(configured()).open() as worker:
        alone = Alone(worker, update)
        session = Session("s", "", 0)
        alone.channels.change([session], ChannelChange("first", True))
        await until(lambda: not alone.channels._busy, WITHIN, "the first is being written")
        await until(lambda: not alone.channels._written["s"].waiting, WITHIN, "it is taken")
        for number in range(12):
            alone.channels.change([session], ChannelChange(str(number), True))
        assert worker.counters.errors["internal"] == 2
        goes_on.set()
        await until(lambda: len(written) == 2, WITHIN, "all are written")
        # Those that waited are written together.
        assert written == [("first",), ("first", *map(str, range(10)))]
        # Nobody holds the session here, so nothing of it is left.
        await until(lambda: not alone.channels._written, WITHIN, "nothing is remembered")
        assert (alone.channels._writers, alone.channels._forgetting) == (0, None)
        worker.counters.errors["internal"] = 0


async def test_changes_that_the_store_does_not_take_are_counted_each():
    async def update(*_: Any, **__: Any) -> int:
        raise StoreUnavailable("it is away")

    async with LocalWorker(configured()).open() as worker:
        alone = Alone(worker, update)
        sessions = [Session(str(number), "", 0) for number in range(250)]
        alone.channels.change(sessions, ChannelChange("a", True))
        await until(lambda: worker.counters.errors["store"] == 250, WITHIN, "each is counted")
        assert alone.channels._writers == 0
