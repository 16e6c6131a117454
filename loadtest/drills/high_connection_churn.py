"""HighConnectionChurn: hundreds of clients a second connect and disconnect."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, SERVICE, STEADY, Component, Drill
from loadtest.drilling.environment.load import Load
from loadtest.drilling.faults.injector import FaultInjector


def _churn(rate: int) -> Load:
    return Load(
        "churn", users=max(4, rate // 10), options=("--rate", str(rate)), is_accounted=False
    )


def provoke(injector: FaultInjector) -> None:
    injector.add_load(_churn(300))


def below(injector: FaultInjector) -> None:
    injector.add_load(_churn(92))


DRILL = Drill(
    alert="HighConnectionChurn",
    breaks="300 clients a second connect and disconnect",
    undo="the load ends",
    provoke=provoke,
    fires_seconds=420,
    resolves_seconds=330,
    fixed_seconds=10,
    affects=frozenset({Component.CONNECTIONS, Component.SESSIONS, Component.MACHINE}),
    needs=MONITORING | (SERVICE - {Component.CONNECTIONS}),
    load=STEADY,
    below=below,
    below_breaks="92 clients a second connected and disconnected",
    below_seconds=345,
    is_by_load=True,
)
