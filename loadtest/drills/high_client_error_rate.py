"""HighClientErrorRate: clients make many mistakes."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.environment.load import Load
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    injector.add_load(Load("errors", users=5, options=("--rate", "10"), is_accounted=False))


DRILL = Drill(
    alert="HighClientErrorRate",
    breaks="five clients call a procedure that does not exist, ten times a second in total",
    undo="they disconnect",
    provoke=provoke,
    fires_seconds=720,
    resolves_seconds=330,
    fixed_seconds=10,
    affects=frozenset({Component.CLIENT_FAULTS}),
    needs=MONITORING | SERVICE,
    is_by_load=True,
)
