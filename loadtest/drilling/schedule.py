"""Which drill runs where and when: side by side, as long as none spoils what another needs.

Rules
- On one environment nobody takes a part that another takes or uses; of `Component.MACHINE` there is one for all
  environments together.
- The longest drill that can begin begins first. Nothing waits that could run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from loadtest.drilling.drill import Component, Drill


def disturb(one: Drill, other: Drill, *, is_same_environment: bool) -> bool:
    """Whether two drills must not run at the same time."""
    spoiled = (one.affects & other.touched) | (other.affects & one.touched)
    return bool(spoiled if is_same_environment else spoiled & {Component.MACHINE})


def length_seconds(drill: Drill, compress: float) -> float:
    """About how long a drill takes, in real seconds."""
    # A notification waits for its group, once to begin and once to end.
    waits = (30.0 + 300.0) if drill.proof == "full" else 60.0
    return (
        (drill.fires_seconds + drill.resolves_seconds + drill.below_seconds + waits) / compress
        + drill.fixed_seconds
        + 6
    )


@dataclass(slots=True)
class ScheduleRow:
    """One environment's row in the schedule.

    Attributes:
        compress: how fast time passes on it.
        together: how many drills may run on it at a time.
        has_begun: whether a drill has run here.
    """

    name: str
    compress: float
    together: int
    running: list[Drill] = field(default_factory=list)
    has_begun: bool = False

    def can_take(self, drill: Drill, others: Iterable[Drill]) -> bool:
        """Whether a drill may begin here now.

        Args:
            others: what runs on other environments.
        """
        return (
            len(self.running) < self.together
            and not any(disturb(drill, one, is_same_environment=True) for one in self.running)
            and not any(disturb(drill, one, is_same_environment=False) for one in others)
        )


def fits(drill: Drill, place: ScheduleRow, places: Sequence[ScheduleRow]) -> bool:
    """Whether a drill belongs on an environment: on the fastest that its condition can hold on."""
    speeds = [p.compress for p in places if p.compress <= drill.compress_at_most]
    return bool(speeds) and place.compress == max(speeds)


def next_drill(
    waiting: Sequence[Drill], place: ScheduleRow, places: Sequence[ScheduleRow]
) -> Drill | None:
    """What to begin on an environment now; None if nothing can."""
    others = [drill for other in places if other is not place for drill in other.running]
    if any(drill.is_early for drill in waiting) and not place.has_begun:
        waiting = [drill for drill in waiting if drill.is_early] or waiting
    for drill in sorted(waiting, key=lambda d: (-length_seconds(d, place.compress), d.alert)):
        if fits(drill, place, places) and place.can_take(drill, others):
            return drill
    return None
