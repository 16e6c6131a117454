"""HighMemoryUsage: another process in the cluster's control group uses the memory."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, Component, Drill
from loadtest.drilling.faults.injector import FaultInjector
from loadtest.drilling.faults.memory_fill import fill


def provoke(injector: FaultInjector) -> None:
    fill(injector, 0.92)


def below(injector: FaultInjector) -> None:
    # Other drills in the same environment need memory, too.
    fill(injector, 0.77)


DRILL = Drill(
    alert="HighMemoryUsage",
    breaks="a process in the cluster's control group holds memory until 92 % of its limit are used",
    undo="that process ends",
    provoke=provoke,
    fires_seconds=330,
    resolves_seconds=30,
    fixed_seconds=10,
    # The simulation changes the list of targets.
    affects=frozenset({Component.MEMORY, Component.REPLICAS}),
    needs=MONITORING | {Component.SUPERVISOR},
    load=None,
    below=below,
    below_breaks="77 % of the memory limit were used",
    below_seconds=60,
)
