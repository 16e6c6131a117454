"""A client has few commands in progress at a time: the others that it has sent wait for the answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest

from cluster.connection import CONGESTED_COMMANDS
from cluster.errors import SHUTDOWN
from tests.harness import wire
from tests.harness.waiting import until
from tests.harness.wire import frame
from tests.unit.local_worker import Caller, LocalWorker, configured, entered

SENT = 500
LAST = SENT + 1


def rpcs(first: int, count: int) -> bytes:
    return b"\n".join(b'{"id":%d,"rpc":{}}' % number for number in range(first, first + count))


IN_ONE_FRAME = frame(wire.TEXT, rpcs(2, SENT))
IN_FRAMES_OF_FIVE = b"".join(frame(wire.TEXT, rpcs(2 + at, 5)) for at in range(0, SENT, 5))


class SlowCalls:
    """A worker whose rpc calls end when they are allowed to."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Semaphore(0)

    async def answer(self, _user: str, _data: bytes) -> bytes:
        self.begun += 1
        await self.may_end.acquire()
        return b"1"

    @asynccontextmanager
    async def worker(self, **client: Any) -> AsyncIterator[LocalWorker]:
        config = configured(command_rate_limit=0, **client)
        async with LocalWorker(config, rpc_handlers={"": self.answer}).open() as worker:
            yield worker

    def end_all(self) -> None:
        for _ in range(SENT):
            self.may_end.release()

    async def settled(self) -> int:
        """How many calls have begun when no more begin."""
        before = -1
        while before < self.begun:
            before = self.begun
            for _ in range(1000):
                await asyncio.sleep(0)
        return self.begun


async def answer_pings(caller: Caller) -> None:
    """Send a pong for every ping, until cancelled."""
    for answered in count():
        await pinged(caller, answered + 1)
        caller.wire.send_text(b"{}")


async def pinged(caller: Caller, times: int) -> None:
    await caller.until(lambda: caller.heard.count({}) >= times)


@pytest.mark.parametrize("data", [IN_ONE_FRAME, IN_FRAMES_OF_FIVE], ids=["one frame", "frames"])
async def test_commands_above_the_limit_begin_when_others_are_answered(data: bytes):
    calls = SlowCalls()
    async with calls.worker() as worker:
        caller = await entered(worker)
        caller.wire.send(data)
        most = CONGESTED_COMMANDS + worker.server.rate.slice
        await until(lambda: calls.begun > CONGESTED_COMMANDS, 10, "many have begun")
        assert await calls.settled() <= most
        assert worker.counters.throttled["commands"] == 1
        for answered in range(100, SENT + 1, 100):
            for _ in range(100):
                calls.may_end.release()
            await caller.reply(answered + 1)
            assert await calls.settled() <= answered + most
        numbers = [one["id"] for one in caller.heard if "rpc" in one]
        assert numbers == list(range(2, LAST + 1))


async def test_a_client_whose_commands_are_in_progress_is_closed_at_once():
    calls = SlowCalls()
    async with calls.worker() as worker:
        caller = await entered(worker)
        caller.wire.send(IN_ONE_FRAME + IN_FRAMES_OF_FIVE)
        await until(lambda: calls.begun > CONGESTED_COMMANDS, 10, "many have begun")
        [client] = worker.server.clients
        client.perform(client.connection.disconnect(SHUTDOWN))
        assert (await caller.closed())[0] == SHUTDOWN.code
        calls.end_all()
        await until(lambda: not worker.server.clients, 10, "it has gone")
        assert await calls.settled() <= CONGESTED_COMMANDS + worker.server.rate.slice


async def test_a_client_that_leaves_while_its_commands_are_in_progress_is_forgotten():
    calls = SlowCalls()
    async with calls.worker() as worker:
        caller = await entered(worker)
        caller.wire.send(IN_ONE_FRAME)
        await until(lambda: calls.begun > CONGESTED_COMMANDS, 10, "many have begun")
        caller.wire.abort()
        # It is not read, so that its end is noticed with the next answer, or ping.
        calls.end_all()
        await until(lambda: not worker.server.clients, 10, "it has gone")


async def test_a_client_whose_pong_is_unread_behind_commands_in_progress_stays():
    calls = SlowCalls()
    async with calls.worker(ping_interval=0.5, pong_timeout=0.1) as worker:
        caller = await entered(worker)
        caller.wire.send(IN_ONE_FRAME)
        pongs = asyncio.create_task(answer_pings(caller))
        await pinged(caller, 3)
        assert calls.begun <= CONGESTED_COMMANDS + worker.server.rate.slice
        calls.end_all()
        await caller.reply(LAST)
        await pinged(caller, caller.heard.count({}) + 2)
        pongs.cancel()
        assert await caller.closed() == (3012, "no pong")
