"""Drills run side by side only where none spoils what another needs."""

from __future__ import annotations

import dataclasses

from loadtest.drilling.drill import MONITORING, SERVICE, Drill, Part
from loadtest.drilling.schedule import ScheduledDrill, disturb, next_drill
from loadtest.drills import registered


def drill(name: str, *takes: Part, **more: object) -> Drill:
    base = Drill(
        alert=name,
        breaks="",
        undo="",
        provoke=lambda injector: None,
        fires_s=60,
        resolves_s=60,
        takes=frozenset(takes),
        uses=MONITORING,
    )
    return dataclasses.replace(base, **more)  # type: ignore[arg-type]


def test_two_that_take_the_same_part_never_run_together():
    assert disturb(drill("a", Part.STORE), drill("b", Part.STORE), is_same_stage=True)
    assert not disturb(drill("a", Part.STORE), drill("b", Part.DISK), is_same_stage=True)


def test_who_takes_what_another_uses_disturbs_it():
    assert disturb(drill("a", Part.SLACK), drill("b", Part.DISK), is_same_stage=True)


def test_the_machine_is_one_for_all_stages():
    busy, heavy = drill("a", Part.MACHINE), drill("b", Part.MACHINE)
    assert disturb(busy, heavy, is_same_stage=False)
    assert not disturb(drill("a", Part.STORE), drill("b", Part.STORE), is_same_stage=False)


def test_the_longest_that_can_begin_begins_first():
    long, short = drill("long", Part.DISK, fires_s=900), drill("short", Part.STORE)
    place = ScheduledDrill("one", 15, together=2)
    assert next_drill([short, long], place, [place]) is long
    place.running.append(drill("x", Part.DISK))
    assert next_drill([short, long], place, [place]) is short


def test_what_must_come_early_comes_before_longer_ones():
    early, long = drill("early", Part.STORE, is_early=True), drill("long", Part.DISK, fires_s=9000)
    place = ScheduledDrill("one", 15, together=2)
    assert next_drill([long, early], place, [place]) is early
    place.has_begun = True
    assert next_drill([long, early], place, [place]) is long


def test_what_cannot_hold_in_fast_time_waits_for_a_slower_stage():
    slow = drill("slow", Part.DISK, compress_at_most=5)
    fast_place, slow_place = ScheduledDrill("fast", 15, 2), ScheduledDrill("slow", 5, 2)
    places = [fast_place, slow_place]
    assert next_drill([slow], fast_place, places) is None
    assert next_drill([slow], slow_place, places) is slow
    assert next_drill([drill("any", Part.STORE)], slow_place, places) is None


def test_every_drill_of_the_project_that_needs_load_says_what_it_needs():
    for one in registered().values():
        assert not one.takes & one.uses, f"{one.alert} takes and uses the same"
        if one.load is not None:
            assert one.touched >= SERVICE - {Part.CONNECTIONS}, one.alert
        if one.proof == "full" and one.reaches is None:
            assert one.uses >= MONITORING, one.alert
