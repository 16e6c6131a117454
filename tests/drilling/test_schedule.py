"""Drills run side by side only if none disturbs what another needs."""

from __future__ import annotations

import dataclasses

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.schedule import ScheduleRow, disturb, next_drill
from loadtest.drills import registered


def drill(name: str, *takes: Component, **more: object) -> Drill:
    base = Drill(
        alert=name,
        breaks="",
        undo="",
        provoke=lambda injector: None,
        fires_seconds=60,
        resolves_seconds=60,
        affects=frozenset(takes),
        needs=MONITORING,
    )
    return dataclasses.replace(base, **more)  # type: ignore[arg-type]


def test_two_that_take_the_same_part_never_run_together():
    assert disturb(
        drill("a", Component.STORE), drill("b", Component.STORE), is_same_environment=True
    )
    assert not disturb(
        drill("a", Component.STORE), drill("b", Component.DISK), is_same_environment=True
    )


def test_two_drills_of_one_alert_never_share_an_environment_but_may_share_the_machine():
    one, other = drill("a", Component.STORE), drill("a", Component.DISK, variant="by-disk")
    assert disturb(one, other, is_same_environment=True)
    assert not disturb(one, other, is_same_environment=False)


def test_who_takes_what_another_uses_disturbs_it():
    assert disturb(
        drill("a", Component.SLACK), drill("b", Component.DISK), is_same_environment=True
    )


def test_all_environments_share_one_machine():
    busy, heavy = drill("a", Component.MACHINE), drill("b", Component.MACHINE)
    assert disturb(busy, heavy, is_same_environment=False)
    assert not disturb(
        drill("a", Component.STORE), drill("b", Component.STORE), is_same_environment=False
    )


def test_the_longest_that_can_begin_begins_first():
    long, short = drill("long", Component.DISK, fires_seconds=900), drill("short", Component.STORE)
    row = ScheduleRow("one", 15, together=2)
    assert next_drill([short, long], row, [row]) is long
    row.running.append(drill("x", Component.DISK))
    assert next_drill([short, long], row, [row]) is short


def test_what_must_come_early_comes_before_longer_ones():
    early, long = (
        drill("early", Component.STORE, is_early=True),
        drill("long", Component.DISK, fires_seconds=9000),
    )
    row = ScheduleRow("one", 15, together=2)
    assert next_drill([long, early], row, [row]) is early
    row.has_begun = True
    assert next_drill([long, early], row, [row]) is long


def test_what_cannot_hold_in_fast_time_waits_for_a_slower_stage():
    slow = drill("slow", Component.DISK, compress_at_most=5)
    fast_row, slow_row = ScheduleRow("fast", 15, 2), ScheduleRow("slow", 5, 2)
    rows = [fast_row, slow_row]
    assert next_drill([slow], fast_row, rows) is None
    assert next_drill([slow], slow_row, rows) is slow
    assert next_drill([drill("any", Component.STORE)], slow_row, rows) is None


def test_every_drill_of_the_project_that_needs_load_says_what_it_needs():
    for one in registered().values():
        assert not one.affects & one.needs, f"{one.alert} takes and uses the same"
        if one.load is not None:
            assert one.touched >= SERVICE - {Component.CONNECTIONS}, one.alert
        if one.proof == "full" and one.reaches is None:
            assert one.needs >= MONITORING, one.alert
