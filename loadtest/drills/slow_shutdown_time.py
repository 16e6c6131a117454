"""SlowShutdownTime: workers take too long to drain."""

from __future__ import annotations

from typing import Final

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.environment.load import Load
from loadtest.drilling.faults.injector import FaultInjector
from loadtest.drilling.faults.roll import roll

_DRAIN_SECONDS: Final = 8.0


def provoke(injector: FaultInjector) -> None:
    environment = injector.environment

    def restore() -> None:
        environment.write_config({})
        roll(injector)

    injector.afterwards(restore)
    environment.write_config({"shutdown": {"drain_window": _DRAIN_SECONDS, "timeout": 12}})
    # The first roll sets the window, the second one drains with it.
    roll(injector)
    injector.add_load(Load("slow-readers", users=4, is_accounted=False))
    roll(injector)


DRILL = Drill(
    alert="SlowShutdownTime",
    breaks="the drain window is set to 8 s, clients stop reading, and the workers are rolled twice",
    undo="those clients disconnect, the drain window is reset, and the workers are rolled once more",
    provoke=provoke,
    fires_seconds=345,
    resolves_seconds=930,
    fixed_seconds=60,
    affects=frozenset({Component.WORKERS, Component.VERSIONS, Component.LOG}),
    needs=MONITORING | (SERVICE - {Component.WORKERS}),
)
