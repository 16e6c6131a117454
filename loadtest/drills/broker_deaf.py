"""BrokerDeaf: one worker's subscription is silently dead."""

from __future__ import annotations

import os
import signal

from loadtest.drilling import undo
from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    store_proxy = injector.environment.store_proxy.pid
    injector.note(undo.signalled(store_proxy, signal.SIGUSR2))
    os.kill(store_proxy, signal.SIGUSR1)


DRILL = Drill(
    alert="BrokerDeaf",
    breaks="a proxy before the store drops everything that the store sends to one worker's subscriptions",
    undo="the proxy forwards everything again",
    provoke=provoke,
    fires_seconds=120,
    resolves_seconds=45,
    fixed_seconds=20,
    affects=frozenset({Component.STORE, Component.LOG, Component.TRAFFIC}),
    needs=MONITORING | (SERVICE - {Component.STORE, Component.TRAFFIC}),
)
