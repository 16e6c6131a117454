"""HighLogErrorRate: an operation fails again and again, and only the log shows it."""

from __future__ import annotations

import os
import signal
from typing import Final

from loadtest.drilling.drill import MONITORING, Component, Drill
from loadtest.drilling.faults.injector import FaultInjector

_EVERY_SECONDS: Final = 2.0


def provoke(injector: FaultInjector) -> None:
    environment = injector.environment
    injector.change_file(
        environment.config_path, lambda text: text.replace('"insecure"', '"insecur"')
    )
    injector.pulse(lambda: os.kill(environment.cluster.pid, signal.SIGHUP), _EVERY_SECONDS)


DRILL = Drill(
    alert="HighLogErrorRate",
    breaks="every two seconds a reload is requested with an invalid configuration",
    undo="the configuration is corrected",
    provoke=provoke,
    fires_seconds=390,
    resolves_seconds=330,
    fixed_seconds=5,
    affects=frozenset({Component.LOG, Component.VERSIONS}),
    needs=MONITORING | {Component.SUPERVISOR},
    load=None,
)
