"""HighErrorRate by another cause: a release of the application has a handler that fails."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.environment.load import Load
from loadtest.drilling.faults.bad_release import release
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    release(injector)
    options = ("--rate", "0.5", "--method", "fail")
    injector.add_load(Load("calls", users=4, options=options, is_accounted=False))


DRILL = Drill(
    alert="HighErrorRate",
    variant="handler",
    breaks="an application is rolled out whose handler raises an exception; it is called every two seconds",
    undo="the calls end, and the application is rolled back",
    provoke=provoke,
    fires_seconds=300,
    resolves_seconds=330,
    fixed_seconds=40,
    affects=frozenset(
        {Component.FAULTS, Component.LOG, Component.WORKERS, Component.VERSIONS, Component.REPLICAS}
    ),
    needs=MONITORING | (SERVICE - {Component.WORKERS}),
)
