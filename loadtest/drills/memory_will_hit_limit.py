"""MemoryWillHitLimit: memory grows slowly and steadily."""

from __future__ import annotations

from typing import Final

from loadtest.drilling.drill import MONITORING, Component, Drill
from loadtest.drilling.faults.injector import FaultInjector
from loadtest.drilling.faults.memory_fill import fill

# From 62 %, 0.8 % more per minute: full within an hour, and below HighMemoryUsage until then.
_FROM: Final = 0.62
_PER_SECOND: Final = 0.008 / 60
_MOST: Final = 0.84


def provoke(injector: FaultInjector) -> None:
    fill(injector, _FROM, growth_per_second=_PER_SECOND * injector.environment.compress, most=_MOST)


DRILL = Drill(
    alert="MemoryWillHitLimit",
    breaks="a process in the cluster's control group holds 62 % of the limit and grows by 0.8 % a minute",
    undo="that process ends",
    provoke=provoke,
    fires_seconds=1080,
    resolves_seconds=60,
    fixed_seconds=10,
    # The simulation changes the list of targets.
    affects=frozenset({Component.MEMORY, Component.REPLICAS}),
    needs=MONITORING | {Component.SUPERVISOR},
    load=None,
)
