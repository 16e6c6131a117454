"""A session has channels of a namespace that a roll has removed: its clients connect, without them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from structlog.testing import capture_logs

from cluster.config import Config, Namespace
from tests.harness.waiting import until
from tests.unit.local_worker import (
    HISTORY,
    RECOVERABLE,
    WITHIN_SECONDS,
    Caller,
    LocalWorker,
    ask,
    changed,
    configured,
)

STRICT = dataclasses.replace(HISTORY, channel_regex="^b$")
EVENT = "session_channel_left_out"


def config(*namespaces: Namespace) -> Config:
    before = configured(options=RECOVERABLE)
    return changed(before, channel=dataclasses.replace(before.channel, namespaces=namespaces))


BEFORE = config(Namespace("old", HISTORY), Namespace("strict", HISTORY))
AFTER = config(Namespace("strict", STRICT))


async def session_with(worker: LocalWorker, *channels: str) -> str:
    """A session that has channels, of a client that has gone."""
    caller = await worker.caller()
    session: str = (await caller.connect())["data"]["session"]["id"]
    await worker.sessions.update(session, channels=channels)
    await until(
        lambda: set(channels) <= worker.node.hub.channels.keys(), WITHIN_SECONDS, "it has them"
    )
    caller.wire.abort()
    await until(lambda: not worker.sessions.held, WITHIN_SECONDS, "the client has gone")
    return session


async def resumed(worker: LocalWorker, session: str, **request: Any) -> tuple[Caller, set[str]]:
    """A client of a session, and the channels that it has of it."""
    caller = await worker.caller()
    connected = await caller.connect(data={"session": session}, **request)
    assert connected["data"]["session"]["resumed"] is True
    return caller, set(connected.get("subs", ()))


async def gets_publications_of_the_other(caller: Caller) -> None:
    await ask(caller, "publish", channel="kept", data=1)
    await caller.until(lambda: 1 in caller.pubs())


@pytest.mark.parametrize("gone", ["old:a", "strict:a"])
async def test_a_client_connects_without_the_channels_that_its_session_cannot_have_any_more(
    gone: str,
):
    before = LocalWorker(BEFORE)
    async with before.open():
        session = await session_with(before, gone, "kept")
    after = LocalWorker(AFTER, store=before.store)
    async with after.open():
        with capture_logs() as logged:
            for _ in range(3):
                caller, has = await resumed(after, session)
                assert has == {"kept"}
                await gets_publications_of_the_other(caller)
        assert [line["namespace"] for line in logged if line["event"] == EVENT] == [
            gone.partition(":")[0]
        ]
        assert after.counters.session_channels_left_out == 3
    again = LocalWorker(BEFORE, store=before.store)
    async with again.open():
        # The configuration was taken back: nothing is lost.
        assert (await resumed(again, session))[1] == {gone, "kept"}


async def test_an_sdk_that_asks_for_such_a_channel_again_connects_too():
    before = LocalWorker(BEFORE)
    async with before.open():
        session = await session_with(before, "old:a", "kept")
    after = LocalWorker(AFTER, store=before.store)
    async with after.open():
        asked: dict[str, Any] = {"old:a": {}, "kept": {}}
        assert (await resumed(after, session, subs=asked))[1] == {"kept"}


async def test_a_channel_that_a_worker_does_not_know_yet_closes_no_client_there():
    worker = LocalWorker(AFTER)
    async with worker.open():
        caller = await worker.caller()
        session = (await caller.connect())["data"]["session"]["id"]
        await worker.sessions.update(session, channels=("new:a", "kept"))
        await until(lambda: "kept" in worker.node.hub.channels, WITHIN_SECONDS, "it has the other")
        await gets_publications_of_the_other(caller)
        assert set(worker.node.hub.channels) == {"kept"}


async def test_the_namespaces_that_are_remembered_as_logged_are_bounded():
    worker = LocalWorker(AFTER)
    async with worker.open():
        with capture_logs() as logged:
            for number in range(200):
                worker.node._server_side.is_possible(f"n{number}:a")
        assert len([line for line in logged if line["event"] == EVENT]) == 100
