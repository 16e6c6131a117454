"""ConnectionCapacity: nearly as many clients as the limit allows."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.environment.load import Load
from loadtest.drilling.faults.injector import FaultInjector
from loadtest.drilling.faults.roll import roll


def provoke(injector: FaultInjector) -> None:
    environment = injector.environment

    def restore() -> None:
        environment.write_config({})
        roll(injector)

    injector.afterwards(restore)
    environment.write_config({"client": {"connection_limit": 10}})
    roll(injector)
    injector.add_load(Load("idle", users=12))


DRILL = Drill(
    alert="ConnectionCapacity",
    breaks="the connection limit of each of two workers is ten, and 18 clients are connected",
    undo="twelve clients disconnect, and the limit is removed",
    provoke=provoke,
    fires_seconds=345,
    resolves_seconds=60,
    fixed_seconds=40,
    affects=frozenset(
        {Component.CONNECTIONS, Component.WORKERS, Component.VERSIONS, Component.REPLICAS}
    ),
    needs=MONITORING | (SERVICE - {Component.CONNECTIONS, Component.WORKERS}),
)
