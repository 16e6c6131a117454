"""Which drill runs where and when: at the same time, if none disturbs what another needs.

Rules
- In one environment no two drills prove the same alert, and no drill affects a component that another one affects or needs; `Component.MACHINE` is
  shared by all environments.
- The longest drill that can start starts first. No drill waits that could run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from loadtest.drilling.drill import Component, Drill


def disturb(one: Drill, other: Drill, *, is_same_environment: bool) -> bool:
    """Whether two drills must not run at the same time."""
    if is_same_environment and one.alert == other.alert:
        return True
    disturbed = (one.affects & other.touched) | (other.affects & one.touched)
    return bool(disturbed if is_same_environment else disturbed & {Component.MACHINE})


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
        compress: how fast time passes in it.
        together: how many drills may run in it at a time.
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
            others: the drills that run in other environments.
        """
        return (
            len(self.running) < self.together
            and not any(disturb(drill, one, is_same_environment=True) for one in self.running)
            and not any(disturb(drill, one, is_same_environment=False) for one in others)
        )


def fits(drill: Drill, row: ScheduleRow, rows: Sequence[ScheduleRow]) -> bool:
    """Whether an environment is the fastest in which the condition of a drill can hold."""
    speeds = [p.compress for p in rows if p.compress <= drill.compress_at_most]
    return bool(speeds) and row.compress == max(speeds)


def next_drill(
    waiting: Sequence[Drill], row: ScheduleRow, rows: Sequence[ScheduleRow]
) -> Drill | None:
    """The drill to start in an environment now; None if none can."""
    others = [drill for other in rows if other is not row for drill in other.running]
    if any(drill.is_early for drill in waiting) and not row.has_begun:
        waiting = [drill for drill in waiting if drill.is_early] or waiting
    for drill in sorted(waiting, key=lambda d: (-length_seconds(d, row.compress), d.name)):
        if fits(drill, row, rows) and row.can_take(drill, others):
            return drill
    return None
