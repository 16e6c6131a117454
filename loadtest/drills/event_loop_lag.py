"""EventLoopLag: workers are stopped again and again."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Final

from loadtest.drilling import undo
from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.faults.injector import FaultInjector

# Far below the five seconds after which the supervisor replaces a worker that does not answer.
_HELD_SECONDS: Final = 0.7
_FREE_SECONDS: Final = 0.8


def provoke(injector: FaultInjector) -> None:
    workers = injector.environment.workers()
    for pid in workers:
        injector.note(undo.signalled(pid, signal.SIGCONT))

    def hold() -> None:
        _signal(workers, signal.SIGSTOP)
        try:
            injector.wait(_HELD_SECONDS)
        finally:
            _signal(workers, signal.SIGCONT)

    injector.pulse(hold, _FREE_SECONDS)


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


DRILL = Drill(
    alert="EventLoopLag",
    breaks="the workers are stopped for 0.7 s every 1.5 s",
    undo="they continue",
    provoke=provoke,
    fires_seconds=420,
    resolves_seconds=330,
    affects=frozenset({Component.WORKERS}),
    needs=MONITORING | (SERVICE - {Component.WORKERS}),
)
