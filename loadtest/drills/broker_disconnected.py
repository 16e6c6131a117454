"""BrokerDisconnected: the store hangs."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    injector.stop_process(injector.environment.store.pid)


DRILL = Drill(
    alert="BrokerDisconnected",
    breaks="the store is paused (SIGSTOP): connections stay open and nothing answers",
    undo="the store continues (SIGCONT)",
    provoke=provoke,
    fires_seconds=60,
    resolves_seconds=45,
    fixed_seconds=20,
    affects=frozenset({Component.STORE, Component.FAULTS, Component.LOG, Component.TRAFFIC}),
    needs=MONITORING | (SERVICE - {Component.STORE, Component.TRAFFIC}),
    is_acknowledged=True,
)
