"""What the supervisor shows the console: its workers, how some ended, and the key of a development run.

Rule: a key is made only in insecure mode, where the configuration has none; it stays in the data
directory, so that a link keeps working over restarts, and is never logged.
"""

from __future__ import annotations

import os
import secrets
import time
from typing import Final

from cluster import log
from cluster.admin import Readiness
from cluster.children.child import Child
from cluster.config import Config
from cluster.console import ClusterState, EndedWorker, WorkerState
from cluster.supervisor.fleet import Fleet, Slot
from cluster.supervisor.paths import Paths
from cluster.supervisor.shutdown_log import ShutdownLog

_MOST_BEFORE: Final = 5
_KEY_BYTES: Final = 18
_LONGEST_KEY: Final = 256


def cluster_state(
    fleet: Fleet, state: Readiness, *, sessions: float, up_seconds: float
) -> ClusterState:
    """What is known now."""
    now = time.monotonic()
    return ClusterState(
        is_ready=state.is_ready,
        reason=state.reason,
        workers=[w for number, slot in enumerate(fleet.slots) for w in _workers(number, slot, now)],
        sessions=sessions,
        capacity=fleet.capacity(),
        up_seconds=up_seconds,
    )


def _workers(number: int, slot: Slot, now: float) -> list[WorkerState]:
    """The workers of a slot, two during a roll; one without a process if it has none."""
    children = list(slot.service.children.values())
    if not children:
        return [WorkerState(number, slot.spec.lanes[0], 0, "away", slot.service.reason, 0.0)]
    return [
        WorkerState(
            slot=number,
            lane=child.lane,
            pid=child.pid if child.is_running else 0,
            state="draining" if child.stop_asked_at is not None else child.state,
            reason=child.reason,
            up_seconds=now - child.started_at,
        )
        for child in children
    ]


def ended_worker(child: Child, at: float) -> EndedWorker:
    """How a worker that has just ended did so."""
    seconds, phases = child.shutdown_seconds(), child.shutdown_phases()
    return EndedWorker(at, child.lane, child.outcome, seconds, phases)


def ended_workers_before(shutdown_log: ShutdownLog) -> list[EndedWorker]:
    """How the last workers of the run before ended."""
    shutdowns = shutdown_log.read()[-_MOST_BEFORE:]
    return [EndedWorker(None, "", one.outcome, one.seconds, one.phases) for one in shutdowns]


def development_key(config: Config, paths: Paths) -> str:
    """The key of a development run; empty if the configuration has one, or if it is none."""
    if config.admin.key or not config.client.insecure:
        return ""
    try:
        descriptor = os.open(paths.admin_key, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+", encoding="ascii") as file:
            kept = file.read(_LONGEST_KEY).strip()
            if kept:
                return kept
            key = secrets.token_urlsafe(_KEY_BYTES)
            file.write(key + "\n")
            return key
    except (OSError, ValueError) as error:
        log.get_logger().warning("admin_key_write_failed", reason=str(error))
        return secrets.token_urlsafe(_KEY_BYTES)
