"""Silence, and whose fault it is."""

from __future__ import annotations

from cluster.children.heartbeat import Heartbeat, Pauses


def test_five_seconds_of_silence_are_too_many():
    beat = Heartbeat(100.0)
    beat.beat(101.0)
    assert not beat.is_hung(105.9)
    assert beat.is_hung(106.0)


def test_our_own_pause_is_discounted():
    beat, pauses = Heartbeat(0.0), Pauses(0.0, 0.25)
    assert pauses.tick(0.25) == 0.0
    away = pauses.tick(60.5)
    assert away == 60.0
    beat.discount(away)
    assert not beat.is_hung(60.5)
    assert beat.is_hung(65.0)


def test_a_tick_that_comes_early_is_no_pause():
    pauses = Pauses(0.0, 0.25)
    assert pauses.tick(0.1) == 0.0
