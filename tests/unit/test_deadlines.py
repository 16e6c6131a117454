"""What must have happened within a fixed time, and what is kept of things that have ended."""

from __future__ import annotations

import pytest

from cluster.websocket.deadlines import Deadlines


class Clock:
    """Stands for `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("cluster.websocket.deadlines.time", clock)
    return clock


def test_items_are_due_when_their_time_has_come_in_the_order_in_which_they_came(clock: Clock):
    deadlines: Deadlines[str] = Deadlines(10)
    for item in ("first", "second", "third"):
        deadlines.add(item)
        clock.now += 1
    clock.now = 111.0
    assert deadlines.take_due() == ["first", "second"]
    assert deadlines.take_due() == []
    clock.now = 112.0
    assert deadlines.take_due() == ["third"]
    assert len(deadlines) == 0


def test_an_item_that_comes_again_keeps_its_deadline_and_its_place(clock: Clock):
    deadlines: Deadlines[str] = Deadlines(10)
    deadlines.add("first")
    clock.now = 105.0
    deadlines.add("second")
    deadlines.add("first")
    clock.now = 110.0
    assert deadlines.take_due() == ["first"]
    deadlines.add("first")
    clock.now = 115.0
    assert deadlines.take_due() == ["second"]
    clock.now = 120.0
    assert deadlines.take_due() == ["first"]


def test_an_item_that_has_ended_is_kept_no_longer(clock: Clock):
    deadlines: Deadlines[str] = Deadlines(10)
    deadlines.add("ended")
    deadlines.add("open")
    deadlines.discard("ended")
    deadlines.discard("never here")
    assert list(deadlines) == ["open"]
    clock.now = 120.0
    assert deadlines.take_due() == ["open"]
