"""WorkerCPUSaturated: a few clients keep one worker busy."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

from loadtest.drilling import undo
from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.faults.injector import FaultInjector

_CLIENTS: Final = 4
# The worker gets priority over its clients, which would otherwise use its core.
_WORKER_PRIORITY: Final = -15
_CLIENT_PRIORITY: Final = -8


def provoke(injector: FaultInjector) -> None:
    port = str(injector.environment.worker_port_base)
    for pid in injector.environment.workers(0):
        _prefer(injector, pid, _WORKER_PRIORITY)
    # Several clients, so that the worker always has commands to handle.
    for number in range(_CLIENTS):
        flood = [sys.executable, "-m", "loadtest.drilling.faults.flood", port]
        _prefer(injector, injector.run(f"flood-{number}", flood).pid, _CLIENT_PRIORITY)


def _prefer(injector: FaultInjector, pid: int, priority: int) -> None:
    """Raise the priority of a process, so that it can use a whole core of a busy machine."""
    injector.note(undo.priority(pid))
    with suppress(PermissionError, ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, pid, priority)


DRILL = Drill(
    alert="WorkerCPUSaturated",
    breaks="four clients flood the worker of slot 0 with commands, as fast as it reads them",
    undo="they disconnect",
    provoke=provoke,
    fires_seconds=450,
    resolves_seconds=150,
    fixed_seconds=10,
    affects=frozenset({Component.MACHINE, Component.WORKERS}),
    needs=MONITORING | (SERVICE - {Component.WORKERS}),
)
