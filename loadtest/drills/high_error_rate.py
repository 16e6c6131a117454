"""HighErrorRate: the store is gone while clients publish."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, SERVICE, Drill, Part
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
    fires_s=180,
    resolves_s=330,
    fixed_s=10,
    takes=frozenset({Part.STORE, Part.FAULTS, Part.LOG, Part.TRAFFIC}),
    uses=MONITORING | (SERVICE - {Part.STORE, Part.TRAFFIC}),
)
