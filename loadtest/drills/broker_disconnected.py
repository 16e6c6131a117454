"""BrokerDisconnected: the store hangs."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, SERVICE, Drill, Part
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    injector.stop_process(injector.environment.store.pid)


DRILL = Drill(
    alert="BrokerDisconnected",
    breaks="the store is paused (SIGSTOP): connections stand and nothing answers",
    undo="the store goes on (SIGCONT)",
    provoke=provoke,
    fires_s=60,
    resolves_s=45,
    fixed_s=20,
    takes=frozenset({Part.STORE, Part.FAULTS, Part.LOG, Part.TRAFFIC}),
    uses=MONITORING | (SERVICE - {Part.STORE, Part.TRAFFIC}),
    is_acknowledged=True,
)
