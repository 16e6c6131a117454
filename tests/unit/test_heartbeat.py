"""Heartbeats that stop, and pauses of the supervisor itself."""

from __future__ import annotations

from cluster.children.heartbeat import Heartbeat, PauseDetector


def test_a_child_is_hung_five_seconds_after_its_last_heartbeat():
    beat = Heartbeat(100.0)
    beat.beat(101.0)
    assert not beat.is_hung(105.9)
    assert beat.is_hung(106.0)


def test_a_pause_of_the_supervisor_is_discounted():
    beat, pauses = Heartbeat(0.0), PauseDetector(0.0, 0.25)
    assert pauses.tick(0.25) == 0.0
    pause = pauses.tick(60.5)
    assert pause == 60.0
    beat.discount(pause)
    assert not beat.is_hung(60.5)
    assert beat.is_hung(65.0)


def test_a_tick_that_comes_early_is_no_pause():
    pauses = PauseDetector(0.0, 0.25)
    assert pauses.tick(0.1) == 0.0
