"""Waits that share a timer end as those of `asyncio.timeout` do."""

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from cluster.shared_timeout import SharedTimeout

SHORT = 0.05
LONG = 30.0


async def wait(timeout: SharedTimeout, future: "asyncio.Future[str]") -> str:
    with timeout():
        return await future


async def test_a_wait_that_ends_in_time_gives_its_result_and_is_forgotten():
    timeout = SharedTimeout(LONG)
    future = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(wait(timeout, future))
    await asyncio.sleep(0)
    assert len(timeout.waits()) == 1
    future.set_result("in time")
    assert await task == "in time"
    assert len(timeout.waits()) == 0
    assert task.cancelling() == 0


async def test_a_wait_that_takes_longer_ends_with_a_timeout_not_before_its_time():
    timeout = SharedTimeout(SHORT)
    began = time.monotonic()
    task = asyncio.create_task(wait(timeout, asyncio.get_running_loop().create_future()))
    with pytest.raises(TimeoutError):
        await task
    # The loop's clock has whole milliseconds.
    assert time.monotonic() - began > SHORT - 0.002
    assert task.cancelling() == 0
    assert len(timeout.waits()) == 0


async def test_each_wait_has_its_own_end_whichever_ended_before():
    loop = asyncio.get_running_loop()
    timeout = SharedTimeout(SHORT)
    futures = [loop.create_future() for _ in range(4)]
    began, ended = [], []

    async def one(future: "asyncio.Future[str]") -> None:
        began.append(loop.time())
        with pytest.raises(TimeoutError):
            await wait(timeout, future)
        ended.append(loop.time())

    first = asyncio.create_task(wait(timeout, futures[0]))
    await asyncio.sleep(0)
    futures[0].set_result("in time")
    assert await first == "in time"
    tasks = []
    for future in futures[1:]:
        tasks.append(asyncio.create_task(one(future)))
        await asyncio.sleep(SHORT / 5)
    await asyncio.gather(*tasks)
    assert len(ended) == 3
    assert all(end - begin >= SHORT for begin, end in zip(began, ended, strict=True))


async def test_a_cancellation_from_outside_remains_one():
    timeout = SharedTimeout(LONG)
    task = asyncio.create_task(wait(timeout, asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(timeout.waits()) == 0


async def test_a_cancellation_in_the_turn_of_the_timeout_remains_one():
    timeout = SharedTimeout(SHORT)
    task = asyncio.create_task(wait(timeout, asyncio.get_running_loop().create_future()))
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)
    # Set after the timeout's own timer, for the same time: both are due in one turn.
    (due,) = (one.ends_at for one in timeout.waits())
    loop.call_at(due, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_what_is_bounded_is_raised_as_it_is():
    timeout = SharedTimeout(LONG)
    with pytest.raises(ValueError, match="as it is"), timeout():
        raise ValueError("as it is")
    assert len(timeout.waits()) == 0


async def test_after_all_have_ended_the_next_wait_is_bounded_too():
    timeout = SharedTimeout(SHORT)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await wait(timeout, asyncio.get_running_loop().create_future())


async def test_ten_thousand_waits_share_a_timer(monkeypatch: pytest.MonkeyPatch):
    timeout = SharedTimeout(SHORT)
    loop = asyncio.get_running_loop()
    call_at, timers = loop.call_at, Counter[str]()

    def counted(*given: Any, **options: Any) -> asyncio.TimerHandle:
        timers["set"] += 1
        return call_at(*given, **options)

    monkeypatch.setattr(loop, "call_at", counted)
    waits = [wait(timeout, loop.create_future()) for _ in range(10_000)]
    ended = await asyncio.gather(*waits, return_exceptions=True)
    assert {type(one) for one in ended} == {TimeoutError}
    # They began in more than one millisecond of the loop's clock.
    assert 0 < timers["set"] < 1_000
