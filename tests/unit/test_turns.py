"""Connections that have much to do share the turns of the loop; the others do not wait for them."""

from __future__ import annotations

import asyncio
import time

import pytest

from cluster import turns
from cluster.turns import Turns, turns_of
from tests.harness.waiting import until


class Busy:
    """A connection whose part of work takes a while, and which then waits again."""

    def __init__(self, waiting: Turns, order: list[str], name: str, *, parts: int) -> None:
        self._waiting = waiting
        self._order = order
        self._name = name
        self.parts = parts

    def begin_turn(self) -> None:
        end = time.perf_counter() + 1.5 * turns.SECONDS_PER_TURN
        while time.perf_counter() < end:
            pass
        self._order.append(self._name)
        self.parts -= 1
        if self.parts:
            self._waiting.add(self)


async def test_one_that_takes_all_of_a_turn_leaves_the_next_turn_to_the_others():
    waiting = turns_of(asyncio.get_running_loop())
    order: list[str] = []
    busy = [Busy(waiting, order, name, parts=3) for name in "abc"]
    between: list[int] = []

    def count_turn() -> None:
        between.append(len(order))
        if waiting.are_taken:
            asyncio.get_running_loop().call_soon(count_turn)

    for one in busy:
        waiting.add(one)
    asyncio.get_running_loop().call_soon(count_turn)
    await until(lambda: not waiting.are_taken, 10, "all of them are done")
    assert order == list("abcabcabc")
    # Between two of them the loop comes to everything else.
    assert between[:9] == [1, 2, 3, 4, 5, 6, 7, 8, 9]


async def test_those_with_little_to_do_have_one_turn_together_and_may_come_back(
    monkeypatch: pytest.MonkeyPatch,
):
    # This process may be stopped for longer than their time.
    monkeypatch.setattr(turns, "SECONDS_PER_TURN", 60.0)
    waiting = turns_of(asyncio.get_running_loop())
    done: list[int] = []

    class Idle:
        def begin_turn(self) -> None:
            done.append(len(done))
            if len(done) < 6:
                waiting.add(self)

    for _ in range(3):
        waiting.add(Idle())
    await asyncio.sleep(0)
    # Those that came back wait for the next turn.
    assert len(done) == 3
    await until(lambda: not waiting.are_taken, 10, "all of them are done")
    assert len(done) == 8


async def test_one_that_raises_is_reported_and_the_others_go_on():
    loop = asyncio.get_running_loop()
    waiting = turns_of(loop)
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    done: list[int] = []
    fault = ValueError("a fault")

    class Faulty:
        def begin_turn(self) -> None:
            raise fault

    class Good:
        def begin_turn(self) -> None:
            done.append(1)

    for one in (Faulty(), Good(), Faulty(), Good()):
        waiting.add(one)
    await until(lambda: len(done) == 2, 10, "the others had their turn")
    assert reported == [fault, fault]
    assert not waiting.are_taken


async def test_each_loop_has_turns_of_its_own():
    here = turns_of(asyncio.get_running_loop())
    assert turns_of(asyncio.get_running_loop()) is here
    other = asyncio.new_event_loop()
    try:
        assert turns_of(other) is not here
    finally:
        other.close()
