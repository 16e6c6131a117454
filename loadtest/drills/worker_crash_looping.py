"""WorkerCrashLooping: a worker is killed again and again."""

from __future__ import annotations

import os
import signal
from typing import Final

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.environment.cluster import WORKERS, alive
from loadtest.drilling.faults.injector import FaultInjector

_KILLS: Final = 4
_FEW: Final = 2
_HISTORY_SECONDS: Final = 120.0
_SECONDS: Final = 60.0


def provoke(injector: FaultInjector) -> None:
    _kill(injector, _KILLS)


def below(injector: FaultInjector) -> None:
    # increase() extrapolates to the whole window: of two kills in the first minute after Prometheus started
    # it makes two and a half.
    injector.wait(injector.seconds(_HISTORY_SECONDS))
    _kill(injector, _FEW)


def _kill(injector: FaultInjector, times: int) -> None:
    environment = injector.environment
    for _ in range(times):
        # A worker that is killed before it came up failed to boot; three of these end the program.
        injector.wait_until(
            lambda: alive(environment) == WORKERS, _SECONDS, "all workers are ready"
        )
        old = set(environment.workers(0))
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        _wait_for_another(injector, old)
    injector.wait_until(lambda: alive(environment) == WORKERS, _SECONDS, "all workers are ready")


def _wait_for_another(injector: FaultInjector, old: set[int]) -> None:
    injector.wait_until(
        lambda: bool(set(injector.environment.workers(0)) - old), _SECONDS, "another worker"
    )


DRILL = Drill(
    alert="WorkerCrashLooping",
    breaks="the worker of slot 0 is killed (SIGKILL) four times",
    undo="it is not killed again",
    provoke=provoke,
    fires_seconds=60,
    resolves_seconds=930,
    fixed_seconds=30,
    affects=frozenset({Component.WORKERS, Component.LOG}),
    needs=MONITORING | (SERVICE - {Component.WORKERS}),
    below=below,
    below_breaks="it was killed twice",
    below_seconds=60,
)
