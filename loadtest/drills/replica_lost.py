"""ReplicaLost: one of two replicas has stopped and was removed from discovery."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.faults.injector import FaultInjector
from loadtest.drilling.faults.replica import Replica


def prepare(injector: FaultInjector) -> None:
    Replica.of(injector).start()


def provoke(injector: FaultInjector) -> None:
    replica = Replica.of(injector)
    # It keeps running: the rule compares with the number of replicas in the last hour.
    injector.afterwards(replica.start)
    replica.stop()


DRILL = Drill(
    alert="ReplicaLost",
    breaks="the second of two replicas is stopped and removed from discovery, as when scaling down",
    undo="it is started again",
    provoke=provoke,
    prepare=prepare,
    fires_seconds=150,
    resolves_seconds=45,
    fixed_seconds=20,
    affects=frozenset({Component.REPLICAS, Component.VERSIONS}),
    needs=MONITORING | SERVICE,
)
