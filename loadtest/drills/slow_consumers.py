"""SlowConsumers: clients that do not read."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.environment.load import Load
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    options = ("--rate", "40", "--payload", "40000", "--channels", "1")
    injector.add_load(Load("slow-readers", users=12, options=options, is_accounted=False))


DRILL = Drill(
    alert="SlowConsumers",
    breaks="twelve clients subscribe to a busy channel and read nothing",
    undo="they disconnect",
    provoke=provoke,
    fires_seconds=420,
    resolves_seconds=330,
    fixed_seconds=15,
    affects=frozenset({Component.CONNECTIONS}),
    needs=MONITORING | (SERVICE - {Component.CONNECTIONS}),
    is_by_load=True,
)
