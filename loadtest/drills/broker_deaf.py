"""BrokerDeaf: one worker's subscription is silently dead."""

from __future__ import annotations

import os
import signal

from loadtest.drilling import undo
from loadtest.drilling.drill import MONITORING, SERVICE, Drill, Part
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    store_proxy = injector.environment.store_proxy.pid
    injector.note(undo.signalled(store_proxy, signal.SIGUSR2))
    os.kill(store_proxy, signal.SIGUSR1)


DRILL = Drill(
    alert="BrokerDeaf",
    breaks="a proxy before the store swallows all that one worker's subscriptions are sent",
    undo="the proxy lets everything through again",
    provoke=provoke,
    fires_s=120,
    resolves_s=45,
    fixed_s=20,
    takes=frozenset({Part.STORE, Part.LOG, Part.TRAFFIC}),
    uses=MONITORING | (SERVICE - {Part.STORE, Part.TRAFFIC}),
)
