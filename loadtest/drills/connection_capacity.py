"""ConnectionCapacity: nearly as many clients as fit."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.environment.load import Load
from loadtest.drilling.faults.injector import FaultInjector
from loadtest.drilling.faults.roll import roll


def provoke(injector: FaultInjector) -> None:
    environment = injector.environment

    def back() -> None:
        environment.write_config({})
        roll(injector)

    injector.afterwards(back)
    environment.write_config({"client": {"connection_limit": 10}})
    roll(injector)
    injector.add_load(Load("idle", users=12))


DRILL = Drill(
    alert="ConnectionCapacity",
    breaks="each of two workers takes ten clients at most, and 18 are connected",
    undo="twelve leave, and the limit is taken away",
    provoke=provoke,
    fires_seconds=345,
    resolves_seconds=60,
    fixed_seconds=40,
    affects=frozenset(
        {Component.CONNECTIONS, Component.WORKERS, Component.VERSIONS, Component.REPLICAS}
    ),
    needs=MONITORING | (SERVICE - {Component.CONNECTIONS, Component.WORKERS}),
)
