"""SlowHandlers: a release of the application has a handler that answers late."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.environment.load import Load
from loadtest.drilling.faults.bad_release import release
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    release(injector)
    options = ("--rate", "1", "--method", "slow")
    injector.add_load(Load("calls", users=6, options=options, is_accounted=False))


DRILL = Drill(
    alert="SlowHandlers",
    breaks="an application is rolled out whose handler takes three of its four seconds; it is called once a second",
    undo="the calls end, and the application is rolled back",
    provoke=provoke,
    fires_seconds=420,
    resolves_seconds=330,
    fixed_seconds=40,
    affects=frozenset({Component.WORKERS, Component.VERSIONS, Component.REPLICAS}),
    needs=MONITORING | (SERVICE - {Component.WORKERS}),
)
