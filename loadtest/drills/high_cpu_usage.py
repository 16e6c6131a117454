"""HighCPUUsage: every core of the machine is busy."""

from __future__ import annotations

import os

from loadtest.drilling.drill import MONITORING, Component, Drill
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    # At the lowest priority the cores are never idle, and no other process has to wait.
    for number in range(os.cpu_count() or 1):
        injector.run(f"busy-{number}", ["nice", "-n", "19", "sh", "-c", "while :; do :; done"])


DRILL = Drill(
    alert="HighCPUUsage",
    breaks="a busy loop runs on each core",
    undo="the loops end",
    provoke=provoke,
    fires_seconds=600,
    resolves_seconds=330,
    affects=frozenset({Component.MACHINE}),
    needs=MONITORING | {Component.NODE_EXPORTER},
    load=None,
)
