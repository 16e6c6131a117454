"""What a worker reports of itself and when, which connections are the oldest idle ones, and how it closes them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

import cluster
from cluster.config import BalanceConfig
from cluster.node.balance import BalanceRules, ReportedState, WorkerLoad
from cluster.worker import shedding
from cluster.worker.shedding import ConnectionShedder
from tests.contract.fakes import MemoryStore
from tests.harness.waiting import until
from tests.unit.local_worker import LocalWorker, ask, configured
from tests.unit.test_shedding import connected

OPTIONS = BalanceConfig(
    enabled=True, interval=10.0, threshold_percent=20, after=7.0, shed_percent_per_minute=50
)
QUICK = BalanceConfig(enabled=True, interval=0.1, after=0.1, shed_percent_per_minute=100)
STEADY, STARTING = ReportedState.STEADY, ReportedState.STARTING
RECOVERING, DRAINING = ReportedState.RECOVERING, ReportedState.DRAINING


class Shed:
    """A worker, its shedder, and whether the worker drains."""

    def __init__(self, worker: LocalWorker, options: BalanceConfig) -> None:
        self.worker = worker
        self.is_draining = False
        self.shedder = ConnectionShedder(
            options,
            worker.server,
            worker.control,
            worker.counters,
            is_ready=lambda: worker.is_ready,
            is_draining=lambda: self.is_draining,
        )


@contextlib.asynccontextmanager
async def shed(
    options: BalanceConfig = OPTIONS, store: MemoryStore | None = None
) -> AsyncIterator[Shed]:
    async with LocalWorker(configured(), store=store).open() as worker:
        yield Shed(worker, options)


@contextlib.asynccontextmanager
async def heard(store: MemoryStore) -> AsyncIterator[list[WorkerLoad]]:
    """What another worker of the store hears."""
    reports: list[WorkerLoad] = []
    async with LocalWorker(configured(), store=store).open() as other:
        other.control.on_report("load", WorkerLoad, lambda _, load: reports.append(load))
        yield reports


# --- the rules, the state and the reports --------------------------------------------------------


async def test_the_options_are_the_rules_of_the_decision():
    async with shed() as one:
        assert one.shedder._balance._rules == BalanceRules(
            threshold=0.2, after_seconds=7.0, share_per_minute=0.5, lease_seconds=30.0
        )


async def test_a_worker_is_steady_two_intervals_after_it_has_started_or_recovered():
    async with shed() as one:
        one.shedder._settles_at = 120.0
        assert one.shedder._state(119.9) is STARTING
        assert one.shedder._state(120.0) is STEADY
        one.worker.is_ready = False
        assert one.shedder._state(200.0) is RECOVERING
        one.worker.is_ready = True
        assert one.shedder._state(219.9) is RECOVERING
        assert one.shedder._state(220.0) is STEADY
        one.is_draining = True
        assert one.shedder._state(300.0) is DRAINING
        one.worker.is_ready = False
        assert one.shedder._state(300.0) is DRAINING


async def test_a_report_is_sent_once_an_interval_and_when_the_state_changes():
    store = MemoryStore()
    async with heard(store) as reports, shed(store=store) as one:
        steps = [
            (100.0, STARTING, 1),
            (109.9, STARTING, 1),
            (110.0, STARTING, 2),
            (111.0, STEADY, 3),
            (112.0, STEADY, 3),
            (120.9, STEADY, 3),
            (121.0, STEADY, 4),
        ]
        for now, state, count in steps:
            await one.shedder._report_due(WorkerLoad(5, 0.5, state), now)
            await until(lambda count=count: len(reports) >= count, 10, "it is heard")  # type: ignore[misc]
            assert len(reports) == count, now
        assert reports[0] == WorkerLoad(5, 0.5, STARTING)
        # While the store is away nothing is sent to it; the next one goes at once when it is back.
        one.worker.is_ready = False
        await one.shedder._report_due(WorkerLoad(6, 0.5, RECOVERING), 131.0)
        one.worker.is_ready = True
        await one.shedder._report_due(WorkerLoad(7, 0.5, RECOVERING), 131.1)
        await until(lambda: len(reports) == 5, 10, "it is heard")
        assert reports[-1].connections == 7
        assert one.worker.counters.control["dropped"] == 0


async def test_a_report_that_the_store_does_not_take_is_no_end():
    store = MemoryStore()
    async with shed(store=store) as one:
        store.control.is_up = False
        await one.shedder._report_due(WorkerLoad(5), 100.0)
        assert one.worker.counters.errors["store"] == 1


async def test_a_report_tells_the_share_of_a_core_since_the_last_one():
    async with shed() as one:
        await one.shedder._report_due(WorkerLoad(5), time.monotonic())
        ends_at = time.process_time() + 0.1
        began = time.monotonic()
        while time.process_time() < ends_at:
            pass
        await one.shedder._report_due(WorkerLoad(5), began + 10.0)
        assert 0.009 <= one.shedder._cpu_share <= 0.1


async def test_workers_hear_each_other_and_one_closes_what_it_has_too_much_of():
    store = MemoryStore()
    async with shed(QUICK, store) as one, shed(QUICK, store) as two:
        await connected(one.worker, 40)
        await connected(two.worker, 2)
        tasks = [asyncio.create_task(each.shedder.run()) for each in (one, two)]
        await until(lambda: one.worker.counters.connections_shed >= 1, 60, "one is closed")
        assert two.worker.counters.connections_shed == 0
        for task in tasks:
            assert not task.done()
            task.cancel()


async def test_a_report_that_the_table_has_no_place_for_is_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cluster.node.balance.MOST_WORKERS", 1)
    async with shed() as one:
        for uid in ("first", "first", "second"):
            one.shedder._heard(uid, WorkerLoad(1))
        assert one.worker.counters.control["dropped"] == 1


# --- the choice -------------------------------------------------------------------------------


async def test_a_connection_that_is_new_since_the_last_look_is_idle():
    async with shed() as one:
        [first] = await connected(one.worker, 1)
        one.shedder._oldest(1)
        await ask(first, "publish", channel="a", data=1)
        await connected(one.worker, 1)
        busy, new = one.worker.server.clients
        assert one.shedder._oldest(2) == [new, busy]


async def test_a_connection_with_a_command_in_progress_is_not_idle():
    app, begun, may_end = cluster.Application(), asyncio.Event(), asyncio.Event()

    @app.rpc("wait")
    async def wait(client: cluster.ApplicationClient, data: object) -> None:
        begun.set()
        await may_end.wait()

    async with LocalWorker(configured(), application=app).open() as worker:
        one = Shed(worker, OPTIONS).shedder
        caller, _ = await connected(worker, 2)
        caller.say({"id": 2, "rpc": {"method": "wait"}})
        await begun.wait()
        busy, idle = worker.server.clients
        one._oldest(1)
        assert one._oldest(1) == [idle]
        may_end.set()
        await caller.reply(2)
        await until(lambda: one._oldest(1) == [busy], 10, "both are idle")


async def test_a_bounded_number_of_connections_is_looked_at(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shedding, "_LOOKED_AT", 2)
    async with shed() as one:
        callers = await connected(one.worker, 6)
        one.shedder._oldest(3)
        for caller in callers[:2]:
            await ask(caller, "publish", channel="a", data=1)
        clients = list(one.worker.server.clients)
        # The third one would be idle.
        assert one.shedder._oldest(1) == clients[:1]
        await ask(callers[0], "publish", channel="a", data=1)
        assert one.shedder._oldest(1) == clients[1:2]
        one.shedder._oldest(3)
        await ask(callers[0], "publish", channel="a", data=1)
        # Twice as many as are closed.
        assert one.shedder._oldest(3) == clients[1:4]


# --- closing ----------------------------------------------------------------------------------


async def test_the_times_of_the_closes_are_random_until_the_end_of_the_turn(
    monkeypatch: pytest.MonkeyPatch,
):
    asked: list[tuple[float, float]] = []

    def uniform(first: float, last: float) -> float:
        asked.append((first, last))
        return first

    monkeypatch.setattr(shedding, "random", SimpleNamespace(uniform=uniform))
    async with shed() as one:
        await connected(one.worker, 4)
        now = time.monotonic()
        await one.shedder._close(3, now, now + 2.0)
        assert asked == [(now, now + 2.0)] * 3
        assert one.worker.counters.connections_shed == 3


async def test_a_connection_that_closes_by_itself_is_not_counted_as_closed(
    monkeypatch: pytest.MonkeyPatch,
):
    async with shed() as one:
        first, second = await connected(one.worker, 2)
        chosen = one.shedder._oldest(2)
        monkeypatch.setattr(one.shedder, "_oldest", lambda count: chosen)
        first.wire.close()
        await until(lambda: len(one.worker.server.clients) == 1, 10, "the first has closed")
        await one.shedder._close(2, 0.0, 0.0)
        assert (await second.closed())[0] == 3011
        assert one.worker.counters.connections_shed == 1


@pytest.mark.parametrize("what", ["drains", "loses the store"])
async def test_closing_ends_where_the_worker_drains_or_loses_its_store(what: str):
    async with shed() as one:
        await connected(one.worker, 3)
        count = one.worker.counters
        # After the first close.
        if what == "drains":
            one.shedder._is_draining = lambda: count.connections_shed > 0
        else:
            one.shedder._is_ready = lambda: count.connections_shed == 0
        await one.shedder._close(3, 0.0, 0.0)
        assert count.connections_shed == 1


async def test_the_begin_of_closing_is_logged_once_in_a_while():
    async with shed() as one:
        with capture_logs() as logs:
            for now in (0.0, 30.0, 90.0, 150.1):
                await one.shedder._close(0, now, now)
        assert [line["event"] for line in logs] == ["shedding_started"] * 2


async def test_each_attempt_in_vain_is_logged_once():
    async with shed() as one:
        with capture_logs() as logs:
            for attempts in (0, 1, 1, 2, 2, 0, 0, 1):
                one.shedder._balance.attempts_in_vain = attempts
                one.shedder._warn()
        assert [line["attempts"] for line in logs] == [1, 2, 1]
