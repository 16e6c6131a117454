"""What a node does when something is unavailable: it answers with an error and never waits for ever."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cluster.errors import StoreRefused
from cluster.node import channels
from tests.unit.local_worker import (
    RECOVERABLE,
    LocalWorker,
    ask,
    changed,
    configured,
    entered,
    published,
)

# --- what cannot be had ----------------------------------------------------------------------------


async def test_a_recovery_that_would_fill_the_queue_is_none():
    client = dataclasses.replace(configured().client, queue_max_size=20_000)
    config = changed(configured(options=RECOVERABLE), client=client)
    async with LocalWorker(config).open() as worker:
        speaker = await entered(worker)
        text = "x" * 3000
        for _ in range(6):
            await ask(speaker, "publish", channel="a", data=text)
        caller = await entered(worker)
        epoch = worker.store.streams["a"].epoch
        for offset, recovered in ((4, True), (0, False)):
            position = {"recover": True, "offset": offset, "epoch": epoch}
            result = await ask(caller, "subscribe", channel="a", recoverable=True, **position)
            assert result["subscribe"].get("recovered", False) is recovered
            await ask(caller, "unsubscribe", channel="a")


async def test_a_client_whose_session_s_channel_cannot_be_subscribed_connects_again():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await worker.caller()
        session = (await caller.connect())["data"]["session"]["id"]
        await worker.sessions.update(session, channels=("s",))
        # Before the session's change arrives, which is in the next turn.
        worker.store.is_up = False
        assert (await caller.closed())[0] == 3010


async def test_a_gap_that_the_store_refuses_to_fill_is_reported_and_not_waited_for_for_ever():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="a", recoverable=True)
        await published(caller, 1, channel="a")
        await caller.until(lambda: caller.pubs() == [1])

        async def refuse(*_: Any, **__: Any) -> Any:
            raise StoreRefused("WRONGTYPE")

        worker.broker.read = refuse  # type: ignore[method-assign]
        worker.node.channels.resumed("a")
        await caller.until(lambda: "2500" in str(caller.heard))
        assert worker.counters.errors["broker"] >= 5


async def test_a_gap_that_is_not_filled_is_reported_to_a_subscriber_ahead_of_the_channel_too():
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="a", recoverable=True)
        channel = worker.node.hub.channels["a"]
        [(client, write)] = channel.writes.items()
        channel.writes.clear()
        channel.ahead[client] = (write, 9)

        async def refuse(*_: Any, **__: Any) -> Any:
            raise StoreRefused("WRONGTYPE")

        worker.broker.read = refuse  # type: ignore[method-assign]
        worker.node.channels.resumed("a")
        await caller.until(lambda: "2500" in str(caller.heard))
        assert worker.node.hub.channels == {}, "no channel is held for ever"


async def test_a_gap_is_filled_when_a_cluster_that_was_down_is_up_again(
    monkeypatch: pytest.MonkeyPatch,
):
    """The links are up, and every answer is CLUSTERDOWN: a node that restarts, a failover."""
    monkeypatch.setattr(channels, "_FILL_BACKOFF_LIMIT_SECONDS", 0.1)
    async with LocalWorker(configured(options=RECOVERABLE)).open() as worker:
        caller = await entered(worker)
        await ask(caller, "subscribe", channel="a", recoverable=True)
        read = worker.broker.read
        answers = iter([*["CLUSTERDOWN The cluster is down"] * 7, "LOADING", "MOVED 1 host:1"])

        async def refuse(*args: Any, **options: Any) -> Any:
            if (answer := next(answers, None)) is not None:
                raise StoreRefused(answer)
            return await read(*args, **options)

        worker.broker.read = refuse  # type: ignore[method-assign]
        worker.node.channels.resumed("a")
        await published(caller, 1, channel="a")
        await caller.until(lambda: caller.pubs() == [1])
        assert "2500" not in str(caller.heard)
        assert worker.counters.errors["broker"] == 9, "each is counted"
