"""HighLogErrorRate: something fails again and again, and says so only in the log."""

from __future__ import annotations

import os
import signal
from typing import Final

from loadtest.drilling.drill import MONITORING, Drill, Part
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
    breaks="a reload is asked for every two seconds with a configuration that has a mistake",
    undo="the configuration is corrected",
    provoke=provoke,
    fires_s=390,
    resolves_s=330,
    fixed_s=5,
    takes=frozenset({Part.LOG, Part.VERSIONS}),
    uses=MONITORING | {Part.SUPERVISOR},
    load=None,
)
