"""ConnectionsUnbalanced: one of two workers has nearly all connections."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.environment.load import Load
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    # Past nginx, as a load balancer that keeps a client at its worker would. Balancing is off here, as it is
    # by default.
    host = injector.environment.worker_url(0)
    injector.add_load(Load("idle", users=130, publishes=False), host=host)


DRILL = Drill(
    alert="ConnectionsUnbalanced",
    breaks="130 clients connect to one of two workers, past nginx",
    undo="they disconnect",
    provoke=provoke,
    fires_seconds=645,
    resolves_seconds=60,
    fixed_seconds=15,
    affects=frozenset({Component.CONNECTIONS, Component.WORKERS}),
    needs=MONITORING | (SERVICE - {Component.CONNECTIONS, Component.WORKERS}),
)
