"""Closing sockets whose peers are late, and drains that are: nobody loses the close frame, and the loop turns."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster.websocket import server
from tests.harness import wire
from tests.harness.waiting import until
from tests.harness.wire import frame, upgrade_request
from tests.unit.local_worker import Caller, LocalWorker, configured

CALLERS = 200
#: What leaving costs on a machine that has no time for this process.
LEAVE_SECONDS = 0.005


@contextlib.asynccontextmanager
async def slow_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[LocalWorker, list[Caller]]]:
    """A worker with callers of whom each takes long to leave."""
    async with LocalWorker(configured()).open() as worker:
        callers = [await worker.caller() for _ in range(CALLERS)]
        for caller in callers:
            await caller.connect()
        disconnected = worker.node.disconnected

        def slowly(*args: Any, **options: Any) -> None:
            time.sleep(LEAVE_SECONDS)
            disconnected(*args, **options)

        monkeypatch.setattr(worker.node, "disconnected", slowly)
        yield worker, callers
        monkeypatch.undo()


@contextlib.asynccontextmanager
async def longest_turn() -> AsyncIterator[list[float]]:
    """The seconds of the longest turn of the loop within the block, in a list of one."""
    longest = [0.0]

    async def tick() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0)
            longest[0] = max(longest[0], time.monotonic() - before)

    ticker = asyncio.create_task(tick())
    try:
        yield longest
    finally:
        ticker.cancel()


async def codes(callers: list[Caller]) -> set[int | None]:
    return {(await caller.closed())[0] for caller in callers}


@pytest.mark.parametrize("is_hurried", [False, True], ids=["late", "hurried"])
async def test_a_drain_that_cannot_keep_its_pace_leaves_the_loop_time_for_everything_else(
    monkeypatch: pytest.MonkeyPatch, is_hurried: bool
):
    hurry = asyncio.Event()
    if is_hurried:
        hurry.set()
    async with slow_worker(monkeypatch) as (worker, callers), longest_turn() as longest:
        window = 60.0 if is_hurried else 0.1
        await asyncio.wait_for(worker.server.drain(window, hurry), 20)
        assert await codes(callers) == {3001}
        assert longest[0] < 20 * LEAVE_SECONDS


async def test_clients_that_came_while_the_window_ran_are_closed_in_turns_too(
    monkeypatch: pytest.MonkeyPatch,
):
    async with slow_worker(monkeypatch) as (worker, callers), longest_turn() as longest:
        first, *others = worker.server.clients
        worker.server.clients = {first: None}
        hurry = asyncio.Event()
        drain = asyncio.create_task(worker.server.drain(60.0, hurry))
        await asyncio.sleep(0)
        worker.server.clients.update(dict.fromkeys(others))
        hurry.set()
        await asyncio.wait_for(drain, 20)
        assert await codes(callers) == {3001}
        assert longest[0] < 20 * LEAVE_SECONDS


async def test_a_drain_that_is_cut_short_closes_the_rest_with_3001_in_turns(
    monkeypatch: pytest.MonkeyPatch,
):
    async with slow_worker(monkeypatch) as (worker, callers), longest_turn() as longest:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(worker.server.drain(0.1, asyncio.Event()), 0.3)
        assert any(not caller.wire.ended.is_set() for caller in callers)
        await asyncio.wait_for(worker.server.end(), 20)
        assert await codes(callers) == {3001}
        await until(lambda: not worker.server.clients, 10, "no client is left")
        assert longest[0] < 20 * LEAVE_SECONDS


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
