"""HighSessionCount: more than a thousand sessions."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.environment.load import Load
from loadtest.drilling.faults.injector import FaultInjector


def _sessions(count: int) -> Load:
    return Load("sessions", users=count, spawn_rate=250, is_accounted=False)


def provoke(injector: FaultInjector) -> None:
    # Ten more than the threshold: some may just be reconnecting.
    injector.add_load(_sessions(1011))


def below(injector: FaultInjector) -> None:
    injector.add_load(_sessions(950))


DRILL = Drill(
    alert="HighSessionCount",
    breaks="1,011 clients hold a session each",
    undo="they disconnect, and their sessions expire",
    provoke=provoke,
    fires_seconds=330,
    resolves_seconds=360,
    fixed_seconds=40,
    affects=frozenset({Component.SESSIONS, Component.CONNECTIONS}),
    needs=MONITORING | (SERVICE - {Component.CONNECTIONS}),
    load=None,
    below=below,
    below_breaks="950 clients held a session each",
    below_seconds=60,
    is_acknowledged=True,
    is_by_load=True,
)
