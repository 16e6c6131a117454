"""DeploymentCompleted: a rolling reload, as in a deployment."""

from __future__ import annotations

import os
import signal

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    os.kill(injector.environment.cluster.pid, signal.SIGHUP)


DRILL = Drill(
    alert="DeploymentCompleted",
    breaks="the workers are rolled (HUP) under load",
    undo="nothing to undo: the alert ends by itself",
    provoke=provoke,
    fires_seconds=60,
    resolves_seconds=300,
    fixed_seconds=15,
    affects=frozenset({Component.VERSIONS, Component.WORKERS}),
    needs=MONITORING | (SERVICE - {Component.WORKERS}),
)
