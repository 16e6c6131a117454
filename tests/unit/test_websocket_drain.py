"""Closing sockets whose peers are late, and drains that are: nobody loses the close frame, and the loop turns."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster.application import Application
from cluster.turn_budget import ITEMS_PER_TURN
from cluster.websocket import server
from tests.harness import wire
from tests.harness.waiting import until
from tests.harness.wire import frame, upgrade_request
from tests.unit.local_worker import Caller, LocalWorker, configured, entered

CALLERS = 200
#: What leaving costs on a machine that has no time for this process.
LEAVE_SECONDS = 0.005


class Leaves:
    """How many clients have left in each turn of the event loop."""

    def __init__(self) -> None:
        self._turn = 0
        self._by_turn: Counter[int] = Counter()

    async def count_turns(self) -> None:
        while True:
            await asyncio.sleep(0)
            self._turn += 1

    def add(self) -> None:
        self._by_turn[self._turn] += 1

    @property
    def most_in_a_turn(self) -> int:
        assert self._by_turn.total() == CALLERS
        return max(self._by_turn.values())


@contextlib.asynccontextmanager
async def slow_worker(
    monkeypatch: pytest.MonkeyPatch, application: Application | None = None, **options: Any
) -> AsyncIterator[tuple[LocalWorker, list[Caller], Leaves]]:
    """A worker with callers of whom each takes long to leave."""
    async with LocalWorker(configured(**options), application=application).open() as worker:
        callers = [await entered(worker) for _ in range(CALLERS)]
        disconnected, leaves = worker.node.disconnected, Leaves()

        def slowly(*args: Any, **options: Any) -> None:
            leaves.add()
            time.sleep(LEAVE_SECONDS)
            disconnected(*args, **options)

        monkeypatch.setattr(worker.node, "disconnected", slowly)
        turns = asyncio.create_task(leaves.count_turns())
        try:
            yield worker, callers, leaves
        finally:
            turns.cancel()
            monkeypatch.undo()


async def codes(callers: list[Caller]) -> set[int | None]:
    return {(await caller.closed())[0] for caller in callers}


async def test_of_thousands_that_lose_their_proxy_a_few_leave_in_a_turn(
    monkeypatch: pytest.MonkeyPatch,
):
    async with slow_worker(monkeypatch) as (worker, callers, leaves):
        for caller in callers:
            assert caller.wire.transport is not None
            caller.wire.transport.abort()
        await until(lambda: not worker.server.clients, 30, "all have left")
        assert leaves.most_in_a_turn <= ITEMS_PER_TURN
        assert worker.counters.connections_closed["3000"] == CALLERS


async def test_clients_that_wait_to_leave_have_left_when_the_worker_ends(
    monkeypatch: pytest.MonkeyPatch,
):
    async with slow_worker(monkeypatch) as (worker, callers, leaves):
        for caller in callers:
            assert caller.wire.transport is not None
            caller.wire.transport.abort()
        await until(lambda: len(worker.server.clients) < CALLERS, 10, "the first have left")
        await worker.server.end()
        assert not worker.server.clients
        assert leaves.most_in_a_turn <= ITEMS_PER_TURN


@pytest.mark.parametrize("is_hurried", [False, True], ids=["late", "hurried"])
async def test_a_drain_that_cannot_keep_its_pace_leaves_the_loop_time_for_everything_else(
    monkeypatch: pytest.MonkeyPatch, is_hurried: bool
):
    hurry = asyncio.Event()
    if is_hurried:
        hurry.set()
    async with slow_worker(monkeypatch) as (worker, callers, leaves):
        window = 60.0 if is_hurried else 0.1
        await asyncio.wait_for(worker.server.drain(window, hurry), 20)
        assert await codes(callers) == {3001}
        assert leaves.most_in_a_turn <= ITEMS_PER_TURN


async def test_clients_that_came_while_the_window_ran_are_closed_in_turns_too(
    monkeypatch: pytest.MonkeyPatch,
):
    async with slow_worker(monkeypatch) as (worker, callers, leaves):
        first, *others = worker.server.clients
        worker.server.clients = {first: None}
        hurry = asyncio.Event()
        drain = asyncio.create_task(worker.server.drain(60.0, hurry))
        await asyncio.sleep(0)
        worker.server.clients.update(dict.fromkeys(others))
        hurry.set()
        await asyncio.wait_for(drain, 20)
        assert await codes(callers) == {3001}
        assert leaves.most_in_a_turn <= ITEMS_PER_TURN


async def test_a_drain_that_is_cut_short_closes_the_rest_with_3001_in_turns(
    monkeypatch: pytest.MonkeyPatch,
):
    async with slow_worker(monkeypatch) as (worker, callers, leaves):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(worker.server.drain(0.1, asyncio.Event()), 0.3)
        assert any(not caller.wire.ended.is_set() for caller in callers)
        await asyncio.wait_for(worker.server.end(), 20)
        assert await codes(callers) == {3001}
        await until(lambda: not worker.server.clients, 10, "no client is left")
        assert leaves.most_in_a_turn <= ITEMS_PER_TURN


# --- others that close many clients --------------------------------------------------------------


async def test_many_clients_whose_pongs_are_missing_are_closed_in_turns(
    monkeypatch: pytest.MonkeyPatch,
):
    async with slow_worker(monkeypatch, ping_interval=4, pong_timeout=1) as (
        worker,
        callers,
        leaves,
    ):
        monkeypatch.setattr(random, "random", lambda: 0.0)
        for client in worker.server.clients:
            worker.server._timing_wheel.remove(client, client.timer_slot)
            client.timer_slot = worker.server._timing_wheel.add(client)
        assert await codes(callers) == {3012}
        assert leaves.most_in_a_turn <= ITEMS_PER_TURN


async def test_an_application_that_disconnects_a_user_with_many_connections_leaves_the_loop_time(
    monkeypatch: pytest.MonkeyPatch,
):
    app = Application()
    async with slow_worker(monkeypatch, app) as (_, callers, leaves):
        assert app.disconnect(user="", code=4001) == CALLERS
        assert await codes(callers) == {4001}
        # The first ones have left before `disconnect` returned, in the middle of a turn.
        assert leaves.most_in_a_turn <= 2 * ITEMS_PER_TURN


# --- peers that are late -------------------------------------------------------------------------


async def silent_client(worker: LocalWorker) -> asyncio.StreamWriter:
    """A client that was closed with a close frame and the end of the stream, and has not answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
    writer.write(upgrade_request("x", "/connection/websocket") + frame(wire.TEXT, b"garbage"))
    await asyncio.wait_for(reader.read(-1), 10)
    return writer


async def test_what_a_late_proxy_sends_after_the_end_of_the_stream_is_taken_and_thrown_away():
    async with LocalWorker(configured()).open() as worker:
        writer = await silent_client(worker)
        for _ in range(5):
            # To a socket that is closed the second of them would fail.
            writer.write(frame(wire.TEXT, b'{"id":1,"connect":{}}'))
            await writer.drain()
            await asyncio.sleep(0)
        assert len(worker.server.clients) == 1
        writer.close()
        await until(lambda: not worker.server.clients, 2, "it is gone with its peer")


async def test_those_who_never_answer_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "MOST_LINGERING", 3)
    async with LocalWorker(configured()).open() as worker:
        writers = await asyncio.gather(*(silent_client(worker) for _ in range(10)))
        assert len(worker.server._lingering) == 3
        await until(lambda: len(worker.server.clients) == 3, 2, "the first ones are aborted")
        for writer in writers:
            writer.close()


async def test_those_who_have_not_read_what_was_sent_before_the_close_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(server, "MOST_UNSENT_BYTES", -1)
    async with LocalWorker(configured()).open() as worker:
        writer = await silent_client(worker)
        await until(lambda: not worker.server.clients, 2, "it is aborted")
        writer.close()
