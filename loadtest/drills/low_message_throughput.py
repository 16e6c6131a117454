"""LowMessageThroughput: clients are connected and publish nothing."""

from __future__ import annotations

from loadtest.drilling.drill import IDLE, MONITORING, SERVICE, Component, Drill
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    injector.add_load(IDLE)


DRILL = Drill(
    alert="LowMessageThroughput",
    breaks="clients connect and publish nothing",
    undo="the clients disconnect",
    provoke=provoke,
    # Earlier traffic must first leave the window of five minutes.
    fires_seconds=300 + 630,
    resolves_seconds=60,
    fixed_seconds=10,
    affects=frozenset({Component.TRAFFIC}),
    needs=MONITORING | (SERVICE - {Component.TRAFFIC}),
    load=None,
    is_by_load=True,
)
