"""The form of a drill: what it breaks, and how far its alert must travel.

Rules
- One drill per alert, one file per drill under loadtest/drills/, named as docker/square.yml says.
- Lengths of time are those of production; on an environment with compressed time they are divided. What
  takes real time in either is declared as `fixed_seconds`.
- `provoke` breaks things through its injector only: each breakage is written down with its mend
  before it happens, and is mended in the end whatever comes between.
- `takes` names what the drill spoils for others, `uses` what must be well meanwhile: drills run
  side by side on one environment if nobody takes what another takes or uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from loadtest.drilling.environment.load import Load
from loadtest.drilling.faults.injector import FaultInjector
from loadtest.drilling.receivers import Place
from loadtest.drilling.result import Proof


class Component(StrEnum):
    """What a drill can spoil for another one on the same environment."""

    PUBLIC_PORT = "public port"
    WORKERS = "workers"
    SUPERVISOR = "supervisor"
    STORE = "store"
    CONNECTIONS = "connections"
    TRAFFIC = "traffic"
    FAULTS = "faults"
    CLIENT_FAULTS = "client faults"
    LOG = "log"
    SESSIONS = "sessions"
    MEMORY = "memory"
    METRIC_FILES = "metric files"
    VERSIONS = "versions"
    REPLICAS = "replicas"
    RULES = "rules"
    PROMETHEUS = "prometheus"
    ALERTMANAGER = "alertmanager"
    SLACK = "slack"
    NODE_EXPORTER = "node_exporter"
    DISK = "disk"
    # Shared by every environment of this machine.
    MACHINE = "machine"


# What a notification needs on its way.
MONITORING: Final = frozenset({Component.PROMETHEUS, Component.ALERTMANAGER, Component.SLACK})
# What steady load needs besides.
SERVICE: Final = frozenset(
    {
        Component.PUBLIC_PORT,
        Component.WORKERS,
        Component.SUPERVISOR,
        Component.STORE,
        Component.TRAFFIC,
        Component.CONNECTIONS,
    }
)


STEADY: Final = Load("steady", users=6, options=("--channels", "2", "--rate", "4"))
IDLE: Final = Load("idle", users=4, publishes=False)


@dataclass(frozen=True, slots=True)
class Drill:
    """How one alert is proven.

    Attributes:
        breaks: what is broken, one sentence.
        undo: how it is mended, one sentence.
        provoke: breaks it; returns once it is broken.
        fires_seconds: from the provocation until the alert fires.
        resolves_seconds: from the mending until the alert is inactive.
        fixed_seconds: real seconds that `provoke` and `mends` take on any environment.
        prepare: what must stand before the baseline is looked at.
        below: brings the cause just below the threshold; the alert must stay quiet `below_seconds`.
        below_breaks: what `below` does, one sentence.
        is_acknowledged: whether it is acknowledged in the middle with `monitor ack`.
        compress_at_most: the fastest time in which the condition can hold.
        load: what goes on meanwhile; None for nothing.
        is_by_load: whether load alone provokes it, so that it can be done to any cluster.
        reaches: where it is announced, if not everywhere its severity and team say.
        is_early: whether it must come before others have left their traces in long windows.
    """

    alert: str
    breaks: str
    undo: str
    provoke: Callable[[FaultInjector], None]
    fires_seconds: float
    resolves_seconds: float
    affects: frozenset[Component]
    needs: frozenset[Component] = MONITORING | SERVICE
    fixed_seconds: float = 0.0
    proof: Proof = "full"
    prepare: Callable[[FaultInjector], None] | None = None
    below: Callable[[FaultInjector], None] | None = None
    below_breaks: str = ""
    below_seconds: float = 0.0
    is_acknowledged: bool = False
    compress_at_most: float = float("inf")
    load: Load | None = field(default=STEADY)
    is_by_load: bool = False
    reaches: tuple[Place, ...] | None = None
    is_early: bool = False

    @property
    def touched(self) -> frozenset[Component]:
        """All parts it takes or uses."""
        return self.affects | self.needs


def names(drills: Mapping[str, Drill]) -> Mapping[str, str]:
    """The names of drills, as docker/square.yml has them, by alert."""
    return {alert: drill.provoke.__module__.rpartition(".")[2] for alert, drill in drills.items()}
