"""Which connections a worker closes when it has too many, with which code, and when it closes none."""

from __future__ import annotations

import asyncio

from cluster.config import BalanceConfig
from cluster.node.balance import Balance, WorkerLoad
from cluster.worker.shedding import ConnectionShedder
from tests.harness.waiting import until
from tests.unit.local_worker import Caller, LocalWorker, ask, configured

QUICK = BalanceConfig(enabled=True, interval=0.1, after=0.1, shed_percent_per_minute=100)


def shedder(worker: LocalWorker) -> ConnectionShedder:
    return ConnectionShedder(
        QUICK,
        worker.server,
        worker.control,
        worker.counters,
        is_ready=lambda: worker.is_ready,
        is_draining=lambda: False,
    )


async def connected(worker: LocalWorker, count: int) -> list[Caller]:
    callers = []
    for _ in range(count):
        caller = await worker.caller()
        await caller.connect()
        callers.append(caller)
    return callers


async def test_the_oldest_idle_connections_are_closed_first_and_with_3011():
    async with LocalWorker(configured()).open() as worker:
        callers = await connected(worker, 6)
        # One that has not connected is never closed.
        await worker.caller()
        one = shedder(worker)
        one._oldest(1)
        # The oldest of all sends something between two looks.
        await ask(callers[0], "publish", channel="a", data=1)
        await one._close(2, 0.0, 0.0)
        assert [await caller.closed() for caller in callers[1:3]] == [(3011, "force reconnect")] * 2
        assert worker.counters.connections_shed == 2
        assert worker.counters.connections_closed["3011"] == 2
        assert len(one._oldest(10)) == 4


async def test_busy_connections_are_closed_if_there_are_no_others():
    async with LocalWorker(configured()).open() as worker:
        callers = await connected(worker, 2)
        one = shedder(worker)
        one._oldest(1)
        for caller in callers:
            await ask(caller, "publish", channel="a", data=1)
        assert len(one._oldest(1)) == 1


async def test_nothing_is_closed_when_the_store_was_lost_after_the_decision():
    async with LocalWorker(configured()).open() as worker:
        await connected(worker, 3)
        one = shedder(worker)
        worker.is_ready = False
        await one._close(3, 0.0, 0.0)
        assert worker.counters.connections_shed == 0


async def test_what_a_worker_closes_and_reports_is_what_the_decision_says():
    async with LocalWorker(configured()).open() as worker:
        await connected(worker, 30)
        one = shedder(worker)
        heard: list[WorkerLoad] = []

        class Peers(Balance):
            """Another worker is there, without connections; all reports are kept."""

            def to_close(self, own: WorkerLoad, now: float) -> int:
                heard.append(own)
                self.heard("other", WorkerLoad(0), now)
                return super().to_close(own, now)

        one._balance = Peers(worker.control.uid, one._balance._rules)
        task = asyncio.create_task(one.run())
        await until(lambda: worker.counters.connections_shed >= 1, 30, "one is closed")
        assert heard[0].state == "starting"
        assert heard[-1].state == "steady"
        task.cancel()
