"""HighMemoryUsage: something else in the cluster's control group holds the memory."""

from __future__ import annotations

from loadtest.drill import MONITORING, Drill, Part
from loadtest.drilling.memory import fill
from loadtest.drilling.scene import Scene


def provoke(scene: Scene) -> None:
    fill(scene, 0.92)


def below(scene: Scene) -> None:
    # Others on the same stage need memory, too.
    fill(scene, 0.77)


DRILL = Drill(
    alert="HighMemoryUsage",
    breaks="a process in the cluster's control group holds memory until 92 % of its limit are used",
    mends="that process ends",
    provoke=provoke,
    fires_s=330,
    resolves_s=30,
    fixed_s=10,
    # Where it is simulated, the list of targets is changed.
    takes=frozenset({Part.MEMORY, Part.REPLICAS}),
    uses=MONITORING | {Part.SUPERVISOR},
    load=None,
    below=below,
    below_breaks="77 % of the memory limit were used",
    below_s=60,
)
