"""What a drill is: its fault, and how far its alert must travel.

Rules
- Every alert has a drill, and one file per drill is under loadtest/drills/, named as in docker/square.yml.
  Further drills of an alert provoke it by another cause: each has a `variant`, and is named Alert/variant.
- Durations are those of production; in an environment with compressed time they are divided. What takes
  real time in any environment is declared as `fixed_seconds`.
- `provoke` injects faults through its injector only, which logs how to undo each fault before it
  happens, so that every fault is undone whatever happens.
- `affects` names the components that the fault disturbs, `needs` those that must work meanwhile. Drills
  run at the same time in one environment if none affects what another affects or needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from loadtest.drilling.environment.load import Load
from loadtest.drilling.faults.injector import FaultInjector
from loadtest.drilling.receivers import Receiver
from loadtest.drilling.result import Proof


class Component(StrEnum):
    """A component that a drill can disturb for another drill in the same environment."""

    PUBLIC_PORT = "public port"
    WORKERS = "workers"
    SUPERVISOR = "supervisor"
    STORE = "store"
    CONNECTIONS = "connections"
    TRAFFIC = "traffic"
    FAULTS = "faults"
    CLIENT_FAULTS = "client faults"
    API = "server API"
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
    # Shared by all environments of this machine.
    MACHINE = "machine"


# What a notification depends on.
MONITORING: Final = frozenset({Component.PROMETHEUS, Component.ALERTMANAGER, Component.SLACK})
# What steady load depends on besides.
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
        breaks: the fault, in one sentence.
        undo: how the fault is undone, in one sentence.
        provoke: injects the fault; returns once it is there.
        fires_seconds: from the fault until the alert fires.
        resolves_seconds: from the undo until the alert is inactive.
        fixed_seconds: real seconds that `provoke` and its undo take in any environment.
        prepare: what must run before the baseline.
        below: brings the metric just below the threshold; the alert must stay inactive for `below_seconds`.
        below_breaks: what `below` did, in one sentence.
        is_acknowledged: whether it is acknowledged in the middle with `monitor ack`.
        compress_at_most: the fastest time in which the condition can hold.
        load: the load meanwhile; None for none.
        is_by_load: whether load alone causes it, so that any cluster can be drilled.
        is_active_without_load: whether the alert fires on a healthy cluster that has no load, so that the
            load must start before the baseline.
        reaches: the receivers it must reach, if not all those of its severity and team.
        variant: what tells it from the drill of the same alert that has no variant.
        is_early: whether it must run before other drills have changed the metrics of long windows.
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
    is_active_without_load: bool = False
    reaches: tuple[Receiver, ...] | None = None
    variant: str = ""
    is_early: bool = False

    @property
    def name(self) -> str:
        """Its name in commands and reports."""
        return f"{self.alert}/{self.variant}" if self.variant else self.alert

    @property
    def touched(self) -> frozenset[Component]:
        """All components it affects or needs."""
        return self.affects | self.needs


def names(drills: Mapping[str, Drill]) -> Mapping[str, str]:
    """The names of the drills' files, as docker/square.yml has them, by the names of the drills."""
    return {name: drill.provoke.__module__.rpartition(".")[2] for name, drill in drills.items()}
