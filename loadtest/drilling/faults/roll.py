"""A rolling reload, from the signal until every worker is replaced and the cluster is ready."""

from __future__ import annotations

import os
import signal
from typing import Final

from loadtest.drilling.environment.cluster import WORKERS, alive
from loadtest.drilling.faults.injector import FaultInjector

_SECONDS: Final = 90.0


def roll(injector: FaultInjector) -> None:
    """Roll the workers.

    Raises:
        CannotProvoke: if they are not all replaced within 90 s.
    """
    environment = injector.environment
    old = set(environment.workers())
    os.kill(environment.cluster.pid, signal.SIGHUP)

    def is_rolled() -> bool:
        now = set(environment.workers())
        return not now & old and len(now) == WORKERS and alive(environment) == WORKERS

    injector.wait_until(is_rolled, _SECONDS, "the workers are rolled")
