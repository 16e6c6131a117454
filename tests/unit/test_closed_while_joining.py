"""Clients that close, or read nothing, while what they recover waits for its turn: no join stays behind."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cluster.node import channels, subscribe
from cluster.node.user_commands import SubscribeUser
from tests.harness.waiting import until
from tests.unit.local_worker import (
    RECOVERABLE,
    WITHIN_SECONDS,
    LocalWorker,
    ask,
    changed,
    configured,
    entered,
    published,
)


class StoppedReads:
    """Reads of a worker's streams that are sent, and answered when they are let go."""

    def __init__(self, worker: LocalWorker) -> None:
        self.sent: list[str] = []
        self.let_go = asyncio.Event()
        self._read = worker.broker.read
        worker.broker.read = self._stopped  # type: ignore[method-assign, assignment]

    async def _stopped(self, name: str, *args: Any, **options: Any) -> Any:
        self.sent.append(name)
        await self.let_go.wait()
        return await self._read(name, *args, **options)

    async def until_sent(self, count: int) -> None:
        await until(lambda: len(self.sent) >= count, WITHIN_SECONDS, f"{count} reads are sent")


@asynccontextmanager
async def opened(**broker: Any) -> AsyncIterator[LocalWorker]:
    config = configured(options=RECOVERABLE)
    config = changed(config, broker=dataclasses.replace(config.broker, **broker))
    async with LocalWorker(config).open() as worker:
        yield worker


async def gone(worker: LocalWorker, count: int) -> None:
    """Wait until the worker has only so many clients."""
    await until(lambda: len(list(worker.server.clients)) == count, WITHIN_SECONDS, "it has gone")


def from_start(worker: LocalWorker, channel: str) -> dict[str, Any]:
    return {"recover": True, "offset": 0, "epoch": worker.store.streams[channel].epoch}


async def test_a_client_that_closes_during_its_connect_leaves_no_joiner_behind():
    async with opened() as worker:
        publisher = await entered(worker)
        names = [f"c{number}" for number in range(10)]
        for name in names:
            await published(publisher, 1, channel=name)
        reads = StoppedReads(worker)
        caller = await worker.caller()
        caller.say({"id": 1, "connect": {"subs": {one: from_start(worker, one) for one in names}}})
        await reads.until_sent(4)
        caller.wire.abort()
        await gone(worker, 1)
        reads.let_go.set()
        await until(lambda: not worker.node.hub.channels, WITHIN_SECONDS, "no channel is left")
        assert worker.broker.wanted == {}
        assert worker.counters.stream_reads["dropped"] == 6


async def test_a_user_s_connection_that_closes_does_not_end_a_subscribe_of_the_others():
    async with opened(read_concurrency=1) as worker:
        entering = [await entered(worker) for _ in range(3)]
        by_id = {one.heard[0]["connect"]["client"]: one for one in entering}
        # In the order in which the command meets them.
        callers = [by_id[one.connection.client] for one in worker.node.clients.of("")]
        await published(callers[2], 2, channel="a")
        await published(callers[2], 1, channel="b")
        reads = StoppedReads(worker)
        # A read of the last takes the only place.
        callers[2].say({"id": 100, "history": {"channel": "b", "limit": 1}})
        await reads.until_sent(1)
        position = from_start(worker, "a")
        command = SubscribeUser(user="", channel="a", **position)
        await worker.control.tell("subscribe", command)
        queued = worker.counters.stream_reads
        await until(lambda: queued["queued"] > 0, WITHIN_SECONDS, "the first one's read waits")
        callers[0].wire.abort()
        await gone(worker, 2)
        reads.let_go.set()
        for caller in callers[1:]:
            pushed = await caller.until(
                lambda caller=caller: [  # type: ignore[misc]
                    one for one in caller.heard if "subscribe" in one.get("push", {})
                ]
            )
            assert pushed[0]["push"]["channel"] == "a"
        assert worker.node.hub.channels["a"].joining == 0
        assert worker.counters.errors["store"] == 0
        # And the next command is carried out.
        await worker.control.tell("subscribe", SubscribeUser(user="", channel="c"))
        for caller in callers[1:]:
            await caller.until(
                lambda caller=caller: [  # type: ignore[misc]
                    one for one in caller.heard if one.get("push", {}).get("channel") == "c"
                ]
            )


async def test_a_client_that_closes_during_a_subscribe_leaves_no_joiner_behind():
    async with opened(read_concurrency=1) as worker:
        callers = [await entered(worker) for _ in range(2)]
        for name in ("a", "b"):
            await published(callers[1], 1, channel=name)
        reads = StoppedReads(worker)
        callers[1].say({"id": 100, "history": {"channel": "b", "limit": 1}})
        await reads.until_sent(1)
        callers[0].say({"id": 2, "subscribe": {"channel": "a"} | from_start(worker, "a")})
        queued = worker.counters.stream_reads
        await until(lambda: queued["queued"] > 0, WITHIN_SECONDS, "its read waits")
        callers[0].wire.abort()
        await gone(worker, 1)
        await until(lambda: not worker.node.hub.channels, WITHIN_SECONDS, "no channel is left")
        reads.let_go.set()
        assert "history" in await callers[1].reply(100)
        assert worker.broker.wanted == {}
        assert (await ask(callers[1], "subscribe", channel="a"))["subscribe"]["positioned"]


async def test_a_read_of_a_connect_that_is_cancelled_alone_closes_it_and_gives_the_others_up():
    async with opened() as worker:
        publisher = await entered(worker)
        for name in ("a", "b"):
            await published(publisher, 1, channel=name)
        read = worker.broker.read

        async def cancelled(name: str, *args: Any, **options: Any) -> Any:
            if name == "b":
                raise asyncio.CancelledError
            return await read(name, *args, **options)

        worker.broker.read = cancelled  # type: ignore[method-assign, assignment]
        caller = await worker.caller()
        subs = {one: from_start(worker, one) for one in ("a", "b")}
        caller.say({"id": 1, "connect": {"subs": subs}})
        assert (await caller.closed())[0] == 3000
        assert (worker.node.hub.channels, worker.broker.wanted) == ({}, {})


async def test_a_client_that_takes_nothing_does_not_prolong_its_join_without_an_end(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(channels, "JOIN_SECONDS", 0.05)
    async with opened() as worker:
        caller = await entered(worker)
        await published(caller, 1, channel="a")
        [client] = worker.server.clients
        # As when its socket takes nothing.
        worker.node.reads.hold(client)
        answer = await ask(caller, "subscribe", channel="a", **from_start(worker, "a"))
        assert (answer["error"]["code"], answer["error"]["temporary"]) == (111, True)
        assert (worker.node.hub.channels, worker.broker.wanted) == ({}, {})
        assert worker.counters.errors["broker"] == 0
        worker.node.reads.resume(client)
        assert "subscribe" in await ask(caller, "subscribe", channel="a")


async def test_the_channels_of_a_connect_have_one_limit_together(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(subscribe, "JOIN_SECONDS", 0.05)
    async with opened() as worker:
        publisher = await entered(worker)
        for name in ("a", "b"):
            await published(publisher, 1, channel=name)
        StoppedReads(worker)
        caller = await worker.caller()
        subs = {one: from_start(worker, one) for one in ("a", "b")}
        caller.say({"id": 1, "connect": {"subs": subs}})
        assert (await caller.reply(1))["error"]["code"] == 111
        assert (worker.node.hub.channels, worker.broker.wanted) == ({}, {})
