"""HighErrorRate: the store is killed while clients publish."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    environment = injector.environment

    def start_again() -> None:
        environment.start_store()

    injector.afterwards(start_again)
    environment.store.kill()


DRILL = Drill(
    alert="HighErrorRate",
    breaks="the store is killed (SIGKILL) while clients publish",
    undo="the store is started again with its data",
    provoke=provoke,
    fires_seconds=180,
    resolves_seconds=330,
    fixed_seconds=10,
    affects=frozenset({Component.STORE, Component.FAULTS, Component.LOG, Component.TRAFFIC}),
    needs=MONITORING | (SERVICE - {Component.STORE, Component.TRAFFIC}),
)
