"""Which drill runs where and when: side by side, as long as none spoils what another needs.

Rules
- On one environment nobody takes a part that another takes or uses; of `Part.MACHINE` there is one for all
  environments together.
- The longest drill that can begin begins first. Nothing waits that could run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from loadtest.drilling.drill import Drill, Part


def disturb(one: Drill, other: Drill, *, is_same_stage: bool) -> bool:
    """Whether two drills must not run at the same time."""
    spoiled = (one.takes & other.touched) | (other.takes & one.touched)
    return bool(spoiled if is_same_stage else spoiled & {Part.MACHINE})


def length_s(drill: Drill, compress: float) -> float:
    """About how long a drill takes, in real seconds."""
    # A notification waits for its group, once to begin and once to end.
    waits = (30.0 + 300.0) if drill.proof == "full" else 60.0
    return (drill.fires_s + drill.resolves_s + drill.below_s + waits) / compress + drill.fixed_s + 6


@dataclass(slots=True)
class ScheduledDrill:
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
            and not any(disturb(drill, one, is_same_stage=True) for one in self.running)
            and not any(disturb(drill, one, is_same_stage=False) for one in others)
        )


def fits(drill: Drill, place: ScheduledDrill, places: Sequence[ScheduledDrill]) -> bool:
    """Whether a drill belongs on a environment: on the fastest that its condition can hold on."""
    speeds = [p.compress for p in places if p.compress <= drill.compress_at_most]
    return bool(speeds) and place.compress == max(speeds)


def next_drill(
    waiting: Sequence[Drill], place: ScheduledDrill, places: Sequence[ScheduledDrill]
) -> Drill | None:
    """What to begin on a environment now; None if nothing can."""
    others = [drill for other in places if other is not place for drill in other.running]
    if any(drill.is_early for drill in waiting) and not place.has_begun:
        waiting = [drill for drill in waiting if drill.is_early] or waiting
    for drill in sorted(waiting, key=lambda d: (-length_s(d, place.compress), d.alert)):
        if fits(drill, place, places) and place.can_take(drill, others):
            return drill
    return None
